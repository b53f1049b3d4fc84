_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        r101=dict(config='mmdet::retinanet/retinanet_r101_fpn_1x_coco.py', checkpoint='released'),
        x101=dict(
            config='mmdet::retinanet/retinanet_x101-32x4d_fpn_1x_coco.py', checkpoint='released'
        ),
    ),
    objectives=dict(
        fusion=dict(type='mmkd.FeatureFusion', teacher_name=['r101', 'x101'], weights='confidence')
    ),
)
