# ADL without boxes of the teacher: of the images without labels it says its class scores alone.
_base_ = ['retinanet_r18w8_bccd.py']

known = dict(_base_.train_dataloader.dataset, indices=51)
others = dict(_base_.train_dataloader.dataset, indices=[*range(51, 205)])
both = [dict(type='RepeatDataset', times=2, dataset=known)]
both += [dict(type='mmkd.Unlabelled', dataset=others)]
sampler = dict(type='mmkd.MixedSampler', batch_size=4)
train_dataloader = dict(
    sampler=dict(_delete_=True, **sampler),
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=both),
)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/retinanet_r18w32_few_bccd.py', checkpoint='last'),
    objectives=dict(adl=dict(type='mmkd.DenseKD', classes='adl', boxes=None, normaliser='power')),
)
