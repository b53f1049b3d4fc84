# CWD on logits, also on images without labels: four of each kind in a batch.
_base_ = ['pspnet_r18w8_few_camvid.py']

rest = dict(_base_.few, indices=[i for i in range(367) if i % 5])
both = [_base_.train_dataloader.dataset, dict(type='mmkd.Unlabelled', dataset=rest)]
train_dataloader = dict(
    batch_size=8,
    sampler=dict(_delete_=True, type='mmkd.MixedSampler', batch_size=8),
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=both),
)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/pspnet_r18w32_few_camvid.py', checkpoint='last'),
    objectives=dict(cwd=dict(type='mmkd.CWD')),
)
