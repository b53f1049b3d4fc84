_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::fcos/fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
        checkpoint=(
            'https://download.openmmlab.com/mmdetection/v2.0/fcos/fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco/'
            'fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco-511424d6.pth'
        ),
    ),
    objectives=dict(crosskd=dict(type='mmkd.CrossKD')),
)
