# Groups of processes that learn from each other, on a part of the images each (codistillation in one launch):
# bash tools/dist_train.sh configs/small/kd_neighbours_cls_r8w8_cifar10.py 2
_base_ = ['cls_r8w8_cifar10.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(type='mmkd.Neighbours', groups=2, every=39),
    objectives=dict(
        kd=dict(type='mmkd.KD', tau=1, reduction='cross_entropy', weight=dict(start=0.2))
    ),
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True, type='mmkd.Shard', index='group', dataset=_base_.train_dataloader.dataset
    )
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
