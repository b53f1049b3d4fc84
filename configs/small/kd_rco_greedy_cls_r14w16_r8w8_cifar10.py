# As kd_rco, of ten checkpoints; the next is the last one that is not much farther from the student.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        type='mmkd.Anchors',
        config='mmkd::small/cls_r14w16_cifar10.py',
        anchors=10,
        rule='last_easy',
        eps=0.5,
    ),
    objectives=dict(kd=dict(type='mmkd.KD', weight=0.9)),
    task_weight=0.1,
)
