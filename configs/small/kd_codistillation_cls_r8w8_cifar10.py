# One of two runs that learn from each other, on half of the images each. The other one, at the same time:
# --work-dir work_dirs/second --cfg-options model.teacher.folder=work_dirs/first train_dataloader.dataset.index=1
_base_ = ['cls_r8w8_cifar10.py']

work_dir = 'work_dirs/first'
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(type='mmkd.Follower', folder='work_dirs/second', every=39, lockstep=True),
    objectives=dict(
        kd=dict(type='mmkd.KD', tau=1, reduction='cross_entropy', weight=dict(start=0.2))
    ),
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True, type='mmkd.Shard', index=0, of=2, dataset=_base_.train_dataloader.dataset
    )
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
