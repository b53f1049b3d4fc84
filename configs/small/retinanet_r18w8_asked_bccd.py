# The student of retinanet_r18w8_bccd.py on the boxes of a black box (../chains/active_labels_retinanet_bccd.py), as many steps as on all images.
_base_ = ['retinanet_r18w8_bccd.py']

asked = dict(type='CocoDataset', ann_file='work_dirs/ActiveLabels/annotations.json')
asked.update(data_prefix=dict(img=f'{_base_.data_root}JPEGImages/'), pipeline=_base_.train_pipeline)
asked.update(filter_cfg=_base_.train_dataloader.dataset.filter_cfg)
asked.update(metainfo=dict(classes=('RBC', 'WBC', 'Platelets')))
train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    dataset=dict(_delete_=True, **asked),
)
steps = 624
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=steps, val_interval=steps)
warmup = _base_.param_scheduler[0]
cosine = dict(type='CosineAnnealingLR', eta_min_ratio=0.01, T_max=steps, end=steps, by_epoch=False)
param_scheduler = [warmup, cosine]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=steps))
log_processor = dict(by_epoch=False)
