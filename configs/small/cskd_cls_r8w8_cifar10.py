# A batch is 128 images, and a partner for each, which has no cross entropy.
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(cskd=dict(type='mmkd.CSKD')),
)
train_dataloader = dict(
    batch_size=256, sampler=dict(_delete_=True, type='mmkd.ClassPairSampler', batch_size=256)
)
