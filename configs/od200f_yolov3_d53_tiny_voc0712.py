_base_ = ['yolov3_tiny_voc0712.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::yolov3_d53_voc0712.py', checkpoint='last'),
    # The paper weighs both parts alike, and mmdet sums its own over 32 images.
    objectives=dict(od200f=dict(type='mmkd.OD200F', weight=32.0)),
)
