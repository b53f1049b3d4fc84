_base_ = ['cls_r18_imagenet.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::cls_r34_imagenet.py',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/resnet34_8xb32_in1k_20210831-f257d4e6.pth',
    ),
    objectives=dict(kd=dict(type='mmkd.KD', tau=1, weight=0.5)),
    task_weight=0.5,
)
