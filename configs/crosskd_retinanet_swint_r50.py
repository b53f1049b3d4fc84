# mmdet releases no weights of this teacher: train its config first, or name a checkpoint of your own.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py', checkpoint='last'),
    objectives=dict(crosskd=dict(type='mmkd.CrossKD')),
)
