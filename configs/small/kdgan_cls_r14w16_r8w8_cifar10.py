# The teacher learns as well, so it is a peer; gamma is small, or the new student drags it down.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    peers=dict(
        big=dict(
            type='mmkd.Classifier',
            data_preprocessor=_base_.model.data_preprocessor,
            backbone=dict(type='mmkd.CifarResNet', depth=14, base_channels=16),
            num_classes=10,
            init_cfg=dict(
                type='Pretrained', checkpoint='work_dirs/cls_r14w16_cifar10/epoch_30.pth'
            ),
        )
    ),
    objectives=dict(kdgan=dict(type='mmkd.KDGAN', teacher_name='big', gamma=0.1)),
)
