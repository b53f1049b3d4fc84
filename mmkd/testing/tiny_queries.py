"""Tiny DETRs of other kinds: Conditional, DAB and Deformable DETR, DINO and DDQ."""

from __future__ import annotations

import copy
from typing import Any

from mmkd.testing.tiny_models import merged, tiny_detr

#: width of encoder and decoder whatever the backbone's: networks that share queries need equal ones
DIMS = 16
_FFN = dict(feedforward_channels=DIMS, ffn_drop=0.0)
_FOCAL = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)


def _assigner() -> dict:
    return dict(
        type='HungarianAssigner',
        match_costs=[
            dict(type='FocalLossCost', weight=2.0),
            dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
            dict(type='IoUCost', iou_mode='giou', weight=2.0),
        ],
    )


def _single_level(
    kind: str, width: int, num_classes: int, norm: str, layers: int, dims: int
) -> dict:
    """Parts that Conditional and DAB-DETR have in common, on one map."""
    model = tiny_detr(width, num_classes, norm)
    one, ffn = dict(embed_dims=dims, num_heads=2), dict(_FFN, embed_dims=dims)
    attention = dict(one, dropout=0.0, batch_first=True)
    model['type'] = f'mmdet.{kind}'
    model['neck']['out_channels'] = dims
    model['positional_encoding'] = dict(num_feats=dims // 2, normalize=True)
    model['encoder'] = dict(num_layers=1, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn))
    model['decoder'] = dict(
        num_layers=layers,
        layer_cfg=dict(
            self_attn_cfg=dict(one, attn_drop=0.0, cross_attn=False),
            cross_attn_cfg=dict(one, attn_drop=0.0, cross_attn=True),
            ffn_cfg=ffn,
        ),
        return_intermediate=True,
    )
    model['bbox_head'] = dict(
        type=f'{kind}Head', num_classes=num_classes, embed_dims=dims, loss_cls=dict(_FOCAL)
    )
    model['train_cfg'] = dict(assigner=_assigner())
    return copy.deepcopy(model)


def tiny_conditional_detr(
    width: int = 8, num_classes: int = 3, norm: str = 'BN', layers: int = 2, **changes: Any
) -> dict:
    """Conditional DETR with six queries on a ResNet-18 of ``width``; mmdet fixes its decoder's at
    256."""
    model = _single_level('ConditionalDETR', width, num_classes, norm, layers, 256)
    return merged(model, changes)


def tiny_dab_detr(
    width: int = 8,
    num_classes: int = 3,
    norm: str = 'BN',
    layers: int = 2,
    dims: int = DIMS,
    **changes: Any,
) -> dict:
    """DAB-DETR with six queries, which are boxes, on a ResNet-18 of ``width``."""
    model = _single_level('DABDETR', width, num_classes, norm, layers, dims)
    model['decoder'].update(query_dim=4, query_scale_type='cond_elewise')
    return merged(model, changes)


def tiny_deformable_detr(
    width: int = 8,
    num_classes: int = 3,
    norm: str = 'BN',
    layers: int = 2,
    dims: int = DIMS,
    **changes: Any,
) -> dict:
    """Deformable DETR with refined boxes and six queries on three levels of a ResNet-18.

    With ``as_two_stage=True`` mmdet needs ``dims=256``.
    """
    model = tiny_detr(width, num_classes, norm)
    attention = dict(embed_dims=dims, num_heads=2, dropout=0.0, batch_first=True)
    deformable = dict(attention, num_levels=3, num_points=2)
    ffn = dict(_FFN, embed_dims=dims)
    decoder = dict(self_attn_cfg=attention, cross_attn_cfg=deformable, ffn_cfg=ffn)
    model.update(
        type='mmdet.DeformableDETR',
        num_feature_levels=3,
        with_box_refine=True,
        as_two_stage=False,
        encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn)),
        decoder=dict(
            num_layers=layers, return_intermediate=True, layer_cfg=decoder, post_norm_cfg=None
        ),
        positional_encoding=dict(num_feats=dims // 2, normalize=True, offset=-0.5),
        bbox_head=dict(
            type='DeformableDETRHead',
            num_classes=num_classes,
            embed_dims=dims,
            sync_cls_avg_factor=True,
            loss_cls=dict(_FOCAL),
        ),
        train_cfg=dict(assigner=_assigner()),
    )
    model['backbone']['out_indices'] = (1, 2, 3)
    model['neck'].update(
        in_channels=[2 * width, 4 * width, 8 * width], out_channels=dims, num_outs=3
    )
    return merged(copy.deepcopy(model), changes)


def tiny_dino(
    width: int = 8, num_classes: int = 3, norm: str = 'BN', layers: int = 2, **changes: Any
) -> dict:
    """DINO, which selects its six queries, beside four denoising ones."""
    model = tiny_deformable_detr(width, num_classes, norm, layers)
    model['type'], model['bbox_head']['type'] = 'mmdet.DINO', 'DINOHead'
    model['as_two_stage'] = True
    model['dn_cfg'] = dict(
        label_noise_scale=0.5,
        box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=4),
    )
    return merged(model, changes)


def tiny_ddq(
    width: int = 8, num_classes: int = 3, norm: str = 'BN', layers: int = 2, **changes: Any
) -> dict:
    """DDQ: distinct queries, and dense ones in training."""
    model = tiny_dino(width, num_classes, norm, layers)
    model['type'], model['bbox_head']['type'] = 'mmdet.DDQDETR', 'DDQDETRHead'
    model.update(dense_topk_ratio=1.5, dqs_cfg=dict(type='nms', iou_threshold=0.8))
    return merged(model, changes)
