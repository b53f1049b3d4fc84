_base_ = ['mmdet::yolo/yolov3_mobilenetv2_8xb24-ms-416-300e_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::yolo/yolov3_d53_8xb8-ms-416-273e_coco.py',
        checkpoint='released',
    ),
    # The paper weighs both parts alike, and mmdet sums its own over 24 images.
    objectives=dict(od200f=dict(type='mmkd.OD200F', weight=24.0)),
)
