_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::atss/atss_r101_fpn_1x_coco.py',
        checkpoint=(
            'https://download.openmmlab.com/mmdetection/v2.0/atss/atss_r101_fpn_1x_coco/'
            'atss_r101_fpn_1x_20200825-dfcadd6f.pth'
        ),
    ),
    objectives=dict(crosskd=dict(type='mmkd.CrossKD')),
)
