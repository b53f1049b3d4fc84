# Two classes are added to eight: images of the new ones, 25 of each old one, and KD from the old classifier.
_base_ = ['cls_r8w8_cifar10.py']

load_from = 'work_dirs/cls_r8w8_old_cifar10'  # what fits: the last layer begins anew
new = dict(_base_.train_dataloader.dataset, indices=[*range(8000, 10000)])
kept = [1000 * label + i for label in range(8) for i in range(25)]
memory = dict(_base_.train_dataloader.dataset, indices=kept)
both = [new, dict(type='RepeatDataset', times=10, dataset=memory)]
train_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=both))
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/cls_r8w8_old_cifar10.py', checkpoint='last'),
    objectives=dict(kd=dict(type='mmkd.KD', tau=2.0, class_map=[*range(8)])),
)
