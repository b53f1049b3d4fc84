# YOLOv3 on VOC 2007 and 2012 by the schedule of OD-200FPS: 416 x 416, batches of 32, 160 epochs.
_base_ = [
    'mmdet::yolo/yolov3_d53_8xb8-ms-416-273e_coco.py',
]

data_root = 'data/VOCdevkit/'
filters = dict(filter_empty_gt=True, min_size=32, bbox_min_size=8)
voc2007, voc2012 = (
    dict(
        type='VOCDataset',
        data_root=data_root,
        ann_file=f'VOC{year}/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root=f'VOC{year}/'),
        filter_cfg=filters,
        pipeline=_base_.train_pipeline,
    )
    for year in (2007, 2012)
)
labelled = dict(type='ConcatDataset', ignore_keys=['dataset_type'], datasets=[voc2007, voc2012])
train_dataloader = dict(
    batch_size=32,
    batch_sampler=None,
    dataset=dict(_delete_=True, **labelled),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VOCDataset',
        data_root=data_root,
        ann_file='VOC2007/ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        test_mode=True,
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='VOCMetric', metric='mAP', eval_mode='11points')
test_evaluator = val_evaluator

model = dict(bbox_head=dict(num_classes=20))
train_cfg = dict(max_epochs=160, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=1e-3, momentum=0.9, weight_decay=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, milestones=[120, 140], gamma=0.1),
]
