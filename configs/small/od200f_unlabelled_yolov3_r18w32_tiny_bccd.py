# The first 51 of 205 images have labels; of the others only the teacher says something.
_base_ = ['yolov3_tiny_bccd.py']
known = dict(_base_.train_dataloader.dataset, indices=51)
others = dict(_base_.train_dataloader.dataset, indices=[*range(51, 205)])
both = [known, dict(type='mmkd.Unlabelled', dataset=others)]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=both),
    sampler=dict(_delete_=True, type='mmkd.MixedSampler', batch_size=8),
)
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/yolov3_r18w32_bccd.py', checkpoint='last'),
    # The paper weighs both parts alike, and mmdet sums its own over images.
    objectives=dict(od200f=dict(type='mmkd.OD200F', weight=8.0)),
)
