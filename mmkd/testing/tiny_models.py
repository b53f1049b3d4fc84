"""Real models of mmdet, mmseg and mmkd, made tiny; each takes changes to its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


#: of RetinaNet, GFL and FCOS, whatever the width: some methods ask for equal heads
HEAD_WIDTH = 16


def merged(base: dict, changes: Mapping[str, Any]) -> dict:
    """``base`` with ``changes`` laid over it, mappings key by key."""
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        base[key] = merged(base[key], value) if both else value
    return base


def _detector(kind: str, width: int, norm: str, num_outs: int, start: int) -> dict:
    norm_cfg = dict(type='GN', num_groups=2) if norm == 'GN' else dict(type=norm)
    channels = [width * 2**i for i in range(4)]
    return dict(
        type=f'mmdet.{kind}',
        data_preprocessor=dict(
            type='DetDataPreprocessor', mean=MEAN, std=STD, bgr_to_rgb=True, pad_size_divisor=32
        ),
        backbone=dict(
            type='ResNet',
            depth=18,
            base_channels=width,
            num_stages=4,
            out_indices=(0, 1, 2, 3),
            frozen_stages=-1,
            norm_cfg=norm_cfg,
            norm_eval=False,
            style='pytorch',
        ),
        neck=dict(
            type='FPN',
            in_channels=channels,
            out_channels=2 * width,
            num_outs=num_outs,
            start_level=start,
        ),
    )


def tiny_faster_rcnn(
    width: int = 8, num_classes: int = 3, norm: str = 'BN', **changes: Any
) -> dict:
    """Faster R-CNN on a ResNet-18 of ``width``; an image's RoIs are its objects and sixteen more,
    with no random choice."""
    box = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4)
    model = _detector('FasterRCNN', width, norm, 5, 0)
    model['rpn_head'] = dict(
        type='RPNHead',
        in_channels=2 * width,
        feat_channels=2 * width,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]
        ),
        bbox_coder=dict(box, target_stds=[1.0] * 4),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    )
    model['roi_head'] = dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=5, sampling_ratio=0),
            out_channels=2 * width,
            featmap_strides=[4, 8, 16, 32],
            finest_scale=14,
        ),
        bbox_head=dict(
            type='Shared2FCBBoxHead',
            in_channels=2 * width,
            fc_out_channels=4 * width,
            roi_feat_size=5,
            num_classes=num_classes,
            bbox_coder=dict(box, target_stds=[0.1, 0.1, 0.2, 0.2]),
            reg_class_agnostic=False,
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        ),
    )
    model.update(_two_stages())
    return merged(model, changes)


def _two_stages() -> dict:
    """What both stages train on and predict: every region, so that no random choice is left."""
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.3)
    sampler = dict(type='RandomSampler', neg_pos_ub=-1, pos_fraction=1.0)
    stage = dict(assigner=assigner, pos_weight=-1, debug=False)
    rpn = dict(sampler, num=10000, add_gt_as_proposals=False)
    rcnn = dict(sampler, num=1000, add_gt_as_proposals=True)
    proposals = dict(
        nms_pre=64, max_per_img=16, nms=dict(type='nms', iou_threshold=1.0), min_bbox_size=0
    )
    detections = dict(score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=8)
    return dict(
        train_cfg=dict(
            rpn=dict(stage, sampler=rpn, allowed_border=-1),
            rpn_proposal=dict(proposals),
            rcnn=dict(stage, sampler=rcnn),
        ),
        test_cfg=dict(rpn=dict(proposals), rcnn=detections),
    )


def tiny_retinanet(width: int = 8, num_classes: int = 3, norm: str = 'BN', **changes: Any) -> dict:
    """RetinaNet on a ResNet-18 of ``width``, strides 8 to 128."""
    model = _detector('RetinaNet', width, norm, 5, 1)
    model['neck']['add_extra_convs'] = 'on_input'
    model['bbox_head'] = dict(
        type='RetinaHead',
        num_classes=num_classes,
        in_channels=2 * width,
        stacked_convs=1,
        feat_channels=HEAD_WIDTH,
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=4,
            scales_per_octave=2,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
        ),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    )
    model['train_cfg'] = dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    )
    model['test_cfg'] = _dense_test()
    return merged(model, changes)


def tiny_gfl(width: int = 8, num_classes: int = 3, norm: str = 'BN', **changes: Any) -> dict:
    """GFL on a ResNet-18 of ``width``: boxes are distributions over seven bins."""
    model = tiny_retinanet(width, num_classes, norm)
    model['type'] = 'mmdet.GFL'
    own = dict(type='GFLHead', norm_cfg=dict(type='GN', num_groups=2), reg_max=6)
    loss = dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0)
    prior = dict(octave_base_scale=8, scales_per_octave=1, ratios=[1.0])
    model['bbox_head'].update(own, loss_cls=loss, loss_bbox=dict(type='GIoULoss', loss_weight=2.0))
    model['bbox_head']['anchor_generator'].update(prior)
    model['train_cfg']['assigner'] = dict(type='ATSSAssigner', topk=9)
    del model['train_cfg']['sampler']
    return merged(model, changes)


def tiny_fcos(width: int = 8, num_classes: int = 3, norm: str = 'BN', **changes: Any) -> dict:
    """FCOS on a ResNet-18 of ``width``: a head without anchors."""
    model = _detector('FCOS', width, norm, 5, 1)
    model['neck'].update(add_extra_convs='on_output', relu_before_extra_convs=True)
    model['bbox_head'] = dict(
        type='FCOSHead',
        num_classes=num_classes,
        in_channels=2 * width,
        stacked_convs=1,
        feat_channels=HEAD_WIDTH,
        strides=[8, 16, 32, 64, 128],
        norm_cfg=dict(type='GN', num_groups=2),
    )
    model['test_cfg'] = _dense_test()
    return merged(model, changes)


def tiny_yolov3(width: int = 8, num_classes: int = 3, norm: str = 'BN', **changes: Any) -> dict:
    """YOLOv3 on a ResNet-18 of ``width``, strides 32 to 8, two anchors per cell."""
    model = _detector('YOLOV3', width, norm, 3, 1)
    norm_cfg, widths = model['backbone']['norm_cfg'], [2 * width] * 3
    model['backbone']['out_indices'] = (1, 2, 3)
    model['neck'] = dict(
        type='YOLOV3Neck',
        num_scales=3,
        in_channels=[8 * width, 4 * width, 2 * width],
        out_channels=widths,
        norm_cfg=norm_cfg,
    )
    cross = dict(type='CrossEntropyLoss', use_sigmoid=True, reduction='sum')
    model['bbox_head'] = dict(
        type='YOLOV3Head',
        num_classes=num_classes,
        in_channels=widths,
        out_channels=widths,
        norm_cfg=norm_cfg,
        anchor_generator=dict(
            type='YOLOAnchorGenerator',
            base_sizes=[[(48, 40), (80, 56)], [(20, 32), (30, 24)], [(8, 12), (16, 10)]],
            strides=[32, 16, 8],
        ),
        loss_cls=dict(cross, loss_weight=1.0),
        loss_conf=dict(cross, loss_weight=1.0),
        loss_xy=dict(cross, loss_weight=2.0),
        loss_wh=dict(type='MSELoss', loss_weight=2.0, reduction='sum'),
    )
    model['train_cfg'] = dict(
        assigner=dict(type='GridAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0)
    )
    model['test_cfg'] = _dense_test()
    return merged(model, changes)


def _dense_test() -> dict:
    return dict(
        nms_pre=100,
        min_bbox_size=0,
        score_thr=0.0,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=8,
    )


def tiny_detr(width: int = 8, num_classes: int = 3, norm: str = 'BN', **changes: Any) -> dict:
    """DETR with one encoder and two decoder layers on a ResNet-18 of ``width``."""
    d = 4 * width
    attention = dict(embed_dims=d, num_heads=2, dropout=0.0, batch_first=True)
    ffn = dict(embed_dims=d, feedforward_channels=d, num_fcs=2, ffn_drop=0.0)
    model = _detector('DETR', width, norm, 1, 0)
    model['backbone']['out_indices'] = (3,)
    model.update(
        num_queries=6,
        neck=dict(
            type='ChannelMapper', in_channels=[8 * width], kernel_size=1, out_channels=d, num_outs=1
        ),
        encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
        decoder=dict(
            num_layers=2,
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn),
            return_intermediate=True,
        ),
        positional_encoding=dict(num_feats=d // 2, normalize=True),
        bbox_head=dict(
            type='DETRHead',
            num_classes=num_classes,
            embed_dims=d,
            loss_cls=dict(  # mmdet changes its default in place
                type='CrossEntropyLoss', bg_cls_weight=0.1, loss_weight=1.0, class_weight=1.0
            ),
        ),
        train_cfg=dict(
            assigner=dict(
                type='HungarianAssigner',
                match_costs=[
                    dict(type='ClassificationCost', weight=1.0),
                    dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                    dict(type='IoUCost', iou_mode='giou', weight=2.0),
                ],
            )
        ),
        test_cfg=dict(max_per_img=6),
    )
    return merged(model, changes)


def tiny_pspnet(
    width: int = 8, num_classes: int = 3, norm: str = 'BN', auxiliary: bool = False, **changes: Any
) -> dict:
    """PSPNet on a ResNet-18 of ``width``, stride 8."""
    norm_cfg = dict(type='GN', num_groups=2) if norm == 'GN' else dict(type=norm)
    head = dict(
        channels=2 * width,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        dropout_ratio=0.1,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    )
    model = dict(
        type='mmseg.EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=MEAN,
            std=STD,
            bgr_to_rgb=True,
            pad_val=0,
            seg_pad_val=255,
            size=(64, 96),
        ),
        backbone=dict(
            type='ResNetV1c',
            depth=18,
            stem_channels=width,
            base_channels=width,
            num_stages=4,
            out_indices=(0, 1, 2, 3),
            dilations=(1, 1, 2, 4),
            strides=(1, 2, 1, 1),
            norm_cfg=norm_cfg,
            norm_eval=False,
            contract_dilation=True,
        ),
        decode_head=dict(
            head, type='PSPHead', in_channels=8 * width, in_index=3, pool_scales=(1, 2)
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )
    if auxiliary:
        model['auxiliary_head'] = dict(
            head, type='FCNHead', in_channels=4 * width, in_index=2, num_convs=1, concat_input=False
        )
    return merged(model, changes)


def tiny_classifier(
    width: int = 4, num_classes: int = 3, kind: str = 'resnet', **changes: Any
) -> dict:
    """An ``mmkd.Classifier`` on a small backbone whose narrowest stage has ``width`` channels.

    Args:
        kind (str): ``'resnet'`` (ResNet-8), ``'wrn'`` (WRN-10-1), ``'vgg'`` (VGG-8), or ``'mmdet'``
            (mmdet's ResNet-18).
    """
    backbones = dict(
        resnet=dict(type='mmkd.CifarResNet', depth=8, base_channels=width),
        wrn=dict(type='mmkd.WideResNet', depth=10, base_channels=width),
        vgg=dict(type='mmkd.CifarVGG', depth=8, base_channels=width),
        mmdet=dict(type='mmdet.ResNet', depth=18, base_channels=width, norm_eval=False),
    )
    model = dict(type='mmkd.Classifier', backbone=backbones[kind], num_classes=num_classes)
    model['data_preprocessor'] = dict(mean=MEAN, std=STD, bgr_to_rgb=True)
    return merged(model, changes)
