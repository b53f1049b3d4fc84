_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmkd::small/cls_r14w16_cifar10.py',
        checkpoint='last',
    ),
    objectives=dict(adversarial_logits=dict(type='mmkd.AdversarialLogits')),
)
