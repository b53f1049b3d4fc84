_base_ = ['mmdet::yolo/yolov3_d53_8xb8-ms-416-273e_coco.py']
# Two scales of strides 32 and 16, with the teacher's anchors of these strides.
_base_.model.backbone = dict(type='mmkd.TinyDarknet')
_base_.model.neck.update(num_scales=2, in_channels=[512, 256], out_channels=[256, 128])
head = _base_.model.bbox_head
head.update(in_channels=[256, 128], out_channels=[512, 256], featmap_strides=[32, 16])
head.anchor_generator.update(strides=[32, 16], base_sizes=head.anchor_generator.base_sizes[:2])
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(
        config='mmdet::yolo/yolov3_d53_8xb8-ms-416-273e_coco.py',
        checkpoint='released',
    ),
    # The paper weighs both parts alike, and mmdet sums its own over 8 images.
    objectives=dict(od200f=dict(type='mmkd.OD200F', weight=8.0)),
)
