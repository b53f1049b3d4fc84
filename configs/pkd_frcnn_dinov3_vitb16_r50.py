# Needs transformers, and work_dirs/dinov3_vitb16 as `hf download facebook/dinov3-vitb16-pretrain-lvd1689m` fetches it.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        type='mmkd.VisionModel', model='transformers/work_dirs/dinov3_vitb16', dtype='bf16'
    ),
    objectives=dict(
        pkd=dict(type='mmkd.PKD', student='backbone[-1]', teacher='maps', resize='student')
    ),
)
