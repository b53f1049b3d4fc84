# Faster R-CNN on BCCD from scratch, for two CPU cores. Teacher and student configs set the widths.
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', 'bccd.py']

model = dict(
    backbone=dict(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(num_outs=4),
    rpn_head=dict(anchor_generator=dict(scales=[5], strides=[4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(finest_scale=20, roi_layer=dict(sampling_ratio=1)),
        bbox_head=dict(fc_out_channels=256, num_classes=3),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=250, max_per_img=150), rcnn=dict(sampler=dict(num=64))
    ),
    test_cfg=dict(rpn=dict(nms_pre=250, max_per_img=150)),
)
