# The student on the answers of a black box (../chains/active_mixup_cls_cifar10.py): as many steps as 30 epochs of the protocol.
_base_ = ['cls_r8w8_cifar10.py']

answers = dict(type='mmkd.AnsweredImages', answers='work_dirs/ActiveMixup/answers.npz')
train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(_delete_=True, pipeline=_base_.train_pipeline, **answers),
)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2340, val_interval=2340)
param_scheduler = dict(by_epoch=False, milestones=[1482, 1794, 2028])
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2340))
