_base_ = ['yolov3_tiny_bccd.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/yolov3_r18w32_bccd.py', checkpoint='last'),
    # The paper weighs both parts alike, and mmdet sums its own over 4 images.
    objectives=dict(od200f=dict(type='mmkd.OD200F', weight=4.0)),
)
