# PKD on the neck, also on images without labels: four of each kind in a batch.
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
    objectives=dict(pkd=dict(type='mmkd.PKD')),
)
