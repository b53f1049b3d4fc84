_base_ = ['yolov3_tiny_voc0712.py']
# Half of each batch are images of COCO, without their labels.
coco = dict(type='mmkd.ImageFolder', data_root='data/coco/unlabeled2017/')
coco.update(pipeline=_base_.train_pipeline)
mixed = dict(type='ConcatDataset', ignore_keys=['classes', 'palette', 'dataset_type'])
mixed.update(datasets=[_base_.labelled, dict(type='mmkd.Unlabelled', dataset=coco)])
train_dataloader = dict(
    dataset=dict(_delete_=True, **mixed),
    sampler=dict(_delete_=True, type='mmkd.MixedSampler', batch_size=32),
)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::yolov3_d53_voc0712.py', checkpoint='last'),
    # The paper weighs both parts alike, and mmdet sums its own over images.
    objectives=dict(od200f=dict(type='mmkd.OD200F', weight=32.0)),
)
