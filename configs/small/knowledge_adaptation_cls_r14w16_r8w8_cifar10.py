# Without labels: targets are the teacher's, in part hard for images that `mmkd make TrustedImages` has listed.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r14w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(
        knowledge_adaptation=dict(
            type='mmkd.KnowledgeAdaptation', trusted='work_dirs/TrustedImages/trusted.json'
        )
    ),
    task_weight=0.0,
)
