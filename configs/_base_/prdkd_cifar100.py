# The PR-DKD paper on CIFAR-100: batches of 256 on 3 GPUs, 270 epochs. Configs name the networks.
_base_ = ['cifar100.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(checkpoint='last'),
    # The paper gives no warm-up; that of DKD's code.
    objectives=dict(prdkd=dict(weight=dict(value=1, warmup=20 / 270))),
)
train_dataloader = dict(batch_size=256)
train_cfg = dict(max_epochs=270)
param_scheduler = dict(milestones=[150, 180, 210, 240])
