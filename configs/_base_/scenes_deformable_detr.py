"""Deformable DETR (one-stage, boxes refined) on synthetic scenes from scratch, for one CPU core.

Strides 16 and 32, 40 queries. Teacher and student set the width of the backbone; their
transformers are equal, since decoders that share queries need equal widths.
"""

_base_ = ['synthetic_frcnn.py']

data_root = '{{$SCENES_ROOT:data/scenes/}}'
dims = 64
attention = dict(embed_dims=dims, num_heads=4, batch_first=True, dropout=0.0)
deformable = dict(
    embed_dims=dims, num_heads=4, num_levels=2, num_points=4, batch_first=True, dropout=0.0
)
ffn = dict(embed_dims=dims, feedforward_channels=2 * dims, ffn_drop=0.0)
max_epochs = 24

model = dict(
    _delete_=True,
    type='DeformableDETR',
    num_queries=40,
    num_feature_levels=2,
    with_box_refine=True,
    as_two_stage=False,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        num_stages=4,
        out_indices=(2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
    ),
    neck=dict(
        type='ChannelMapper',
        kernel_size=1,
        out_channels=dims,
        act_cfg=None,
        norm_cfg=dict(type='GN', num_groups=4),
        num_outs=2,
    ),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=3,
        return_intermediate=True,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn),
        post_norm_cfg=None,
    ),
    positional_encoding=dict(num_feats=dims // 2, normalize=True, offset=-0.5),
    bbox_head=dict(
        type='DeformableDETRHead',
        num_classes=5,
        embed_dims=dims,
        sync_cls_avg_factor=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=50),
)
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
train_dataloader = dict(batch_size=4, **loader)
val_dataloader = test_dataloader = loader
val_evaluator = test_evaluator = dict(ann_file=data_root + 'annotations/val.json')
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=1e-4), clip_grad=dict(max_norm=0.5))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=50),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        T_max=max_epochs,
        end=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
