"""Mask2Former on a narrow ResNet."""

from __future__ import annotations

from typing import Any

from mmkd.testing.tiny_models import merged, tiny_pspnet


def tiny_mask2former(
    width: int = 8,
    num_classes: int = 3,
    norm: str = 'BN',
    num_queries: int = 8,
    num_points: int = 128,
    **changes: Any,
) -> dict:
    """mmseg's Mask2Former on a ResNet-18 of ``width``: masks of stride 4, two decoder layers."""
    wide, kind = 2 * width, 'mmdet.CrossEntropyLoss'
    attention = dict(embed_dims=wide, num_heads=2, batch_first=True)
    feed_forward = dict(embed_dims=wide, feedforward_channels=2 * wide)
    positions = dict(num_feats=width, normalize=True)
    encoder = dict(self_attn_cfg=dict(attention, num_levels=3, num_points=2), ffn_cfg=feed_forward)
    decoder = dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=feed_forward)
    model = tiny_pspnet(width, num_classes, norm)
    model['backbone'].update(dilations=(1,) * 4, strides=(1, 2, 2, 2))
    model['decode_head'] = dict(
        type='Mask2FormerHead',
        in_channels=[width * 2**i for i in range(4)],
        strides=[4, 8, 16, 32],
        feat_channels=wide,
        out_channels=wide,
        num_classes=num_classes,
        num_queries=num_queries,
        num_transformer_feat_level=3,
        pixel_decoder=dict(
            type='mmdet.MSDeformAttnPixelDecoder',
            num_outs=3,
            norm_cfg=dict(type='GN', num_groups=2),
            act_cfg=dict(type='ReLU'),
            encoder=dict(num_layers=1, layer_cfg=encoder),
            positional_encoding=positions,
        ),
        positional_encoding=positions,
        transformer_decoder=dict(return_intermediate=True, num_layers=2, layer_cfg=decoder),
        loss_cls=dict(type=kind, loss_weight=2.0, class_weight=[1.0] * num_classes + [0.1]),
        loss_mask=dict(type=kind, use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0, loss_weight=5.0),
        train_cfg=dict(
            num_points=num_points,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(
                type='mmdet.HungarianAssigner',
                match_costs=[
                    dict(type='mmdet.ClassificationCost', weight=2.0),
                    dict(type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
                    dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
                ],
            ),
            sampler=dict(type='mmdet.MaskPseudoSampler'),
        ),
    )
    return merged(model, changes)
