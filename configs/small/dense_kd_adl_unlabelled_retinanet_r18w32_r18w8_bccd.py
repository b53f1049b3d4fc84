# ADL without boxes of the teacher: of the images without labels it says its class scores alone.
_base_ = ['retinanet_r18w8_few_bccd.py']

others = dict(type='mmkd.Unlabelled', dataset=dict(_base_.few, indices=[*range(41, 205)]))
both = [_base_.train_dataloader.dataset, others]
train_dataloader = dict(
    batch_size=8,  # four of each kind
    sampler=dict(_delete_=True, type='mmkd.MixedSampler', batch_size=8),
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=both),
)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/retinanet_r18w32_few_bccd.py', checkpoint='last'),
    objectives=dict(adl=dict(type='mmkd.DenseKD', classes='adl', boxes=None, normaliser='power')),
)
