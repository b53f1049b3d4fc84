_base_ = ['_base_/yolov3_voc0712.py']
# Two scales of strides 32 and 16, with YOLOv3's anchors of these strides.
model = dict(
    backbone=dict(_delete_=True, type='mmkd.TinyDarknet'),
    neck=dict(num_scales=2, in_channels=[512, 256], out_channels=[256, 128]),
    bbox_head=dict(
        in_channels=[256, 128],
        out_channels=[512, 256],
        featmap_strides=[32, 16],
        anchor_generator=dict(
            strides=[32, 16],
            base_sizes=[
                [(116, 90), (156, 198), (373, 326)],
                [(30, 61), (62, 45), (59, 119)],
            ],
        ),
    ),
)
