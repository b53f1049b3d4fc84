# YOLOv3 of strides 32 and 16 on BCCD, by the protocol of the small runs. Configs set the backbone.
_base_ = ['bccd_frcnn.py']

cross = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, reduction='sum')
model = dict(
    _delete_=True,
    type='YOLOV3',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    neck=dict(type='YOLOV3Neck', num_scales=2),
    bbox_head=dict(
        type='YOLOV3Head',
        num_classes=3,
        anchor_generator=dict(
            type='YOLOAnchorGenerator',
            base_sizes=[[(90, 84), (66, 62), (48, 48)], [(40, 40), (30, 32), (16, 16)]],
            strides=[32, 16],
        ),
        bbox_coder=dict(type='YOLOBBoxCoder'),
        featmap_strides=[32, 16],
        loss_cls=dict(cross, loss_weight=1.0),
        loss_conf=dict(cross, loss_weight=1.0),
        loss_xy=dict(cross, loss_weight=2.0),
        loss_wh=dict(type='mmdet.MSELoss', loss_weight=2.0, reduction='sum'),
    ),
    train_cfg=dict(
        assigner=dict(type='GridAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0)
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        conf_thr=0.005,
        nms=dict(type='nms', iou_threshold=0.45),
        max_per_img=100,
    ),
)
