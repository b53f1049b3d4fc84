"""Tiny mmdet detectors, one training step of a pair, for the tests of detection heads."""

import copy
import functools

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

from mmkd.distiller import Distiller
from mmkd.objective import Objective
from mmkd.tap import Trace
from mmkd.teacher import Teacher, build_model
from mmkd.untouched import untouched_random_state

CONFIGS = {
    'frcnn': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'cascade': 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'retinanet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'gfl': 'mmdet::gfl/gfl_r50_fpn_1x_coco.py',
    'fcos': 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'atss': 'mmdet::atss/atss_r50_fpn_1x_coco.py',
}


@functools.cache
def _config(name: str) -> dict:
    from mmkd.config import load_config

    model = load_config(CONFIGS[name]).model
    model.backbone.update(
        type='ResNet', depth=18, base_channels=8, init_cfg=None, frozen_stages=-1, style='pytorch'
    )
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    if 'rpn_head' in model:
        model.rpn_head.update(in_channels=8, feat_channels=8)
        model.roi_head.bbox_roi_extractor.out_channels = 8
        heads = model.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.update(in_channels=8, fc_out_channels=16, num_classes=3)
        rcnn = model.train_cfg.rcnn
        for part in rcnn if isinstance(rcnn, list) else [rcnn]:
            part.sampler.num = 48
        model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=60)
    else:
        model.bbox_head.update(in_channels=8, feat_channels=8, stacked_convs=1, num_classes=3)
        if 'norm_cfg' in model.bbox_head or name in ('gfl', 'fcos', 'atss'):
            model.bbox_head.norm_cfg = dict(type='GN', num_groups=2)
    return model


def detector(name: str, seed: int = 0, **head: object) -> nn.Module:
    """A tiny detector of random weights; ``head`` overrides its (box) head's config."""
    config = copy.deepcopy(_config(name))
    own = config.roi_head.bbox_head if 'roi_head' in config else config.bbox_head
    for part in own if isinstance(own, list) else [own]:
        part.update(head)
    with untouched_random_state():
        torch.manual_seed(seed)
        model = build_model(Config(dict(model=config, default_scope='mmdet')))
        for parameter in model.parameters():  # so that heads say something
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return model


def samples(empty: tuple[int, ...] = (), size: tuple[int, int] = (96, 128)) -> list:
    """Two images of two boxes each, of unequal size, padded to ``size``."""
    from mmdet.structures import DetDataSample

    result = []
    for index in range(2):
        shape = (size[0] - 16 * index, size[1] - 32 * index)
        meta = dict(img_shape=shape, ori_shape=shape, pad_shape=size, batch_input_shape=size)
        meta |= dict(scale_factor=(1.0, 1.0), img_id=index)
        sample = DetDataSample(metainfo=meta)
        boxes = torch.tensor([[8.0, 8, 48, 56], [30, 20, 90, 72]]) + 3 * index
        keep = slice(0, 0) if index in empty else slice(None)
        sample.gt_instances = InstanceData(bboxes=boxes[keep], labels=torch.tensor([0, 2])[keep])
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long()
        )
        result.append(sample)
    return result


def step(
    objective: Objective,
    student: nn.Module,
    teacher: nn.Module,
    batch: list | None = None,
    train: bool = True,
    **options: object,
) -> tuple[dict, Trace]:
    """Build a Distiller, run one training step: all losses, and the trace the objective saw."""
    distiller = Distiller(student, {'o': objective}, _teacher(teacher), preflight=False, **options)
    seen = []
    objective.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    torch.manual_seed(0)
    inputs = torch.randn(2, 3, 96, 128)
    distiller.train(train)
    losses = distiller(inputs, samples() if batch is None else batch, mode='loss')
    return losses, seen[0]


def _teacher(model: nn.Module) -> Teacher:
    return Teacher(model, 'random')


def total(losses: dict) -> torch.Tensor:
    """Sum of what the objective gave."""
    return sum(v for k, v in losses.items() if k.startswith('kd.o.loss'))


def padded_apart(order: tuple[int, int] = (0, 1)) -> tuple[torch.Tensor, list]:
    """Pixels and samples as mmdet's preprocessor makes them: each image knows its own padding."""
    inputs, batch = (
        torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)),
        samples(),
    )
    for image, sample in zip(inputs, batch, strict=True):
        h, w = sample.img_shape
        image[:, h:], image[:, :, w:] = 0, 0
        sample.set_metainfo(dict(pad_shape=(-(-h // 32) * 32, -(-w // 32) * 32)))
    assert {s.pad_shape for s in batch} == {(96, 128), (96, 96)}
    return inputs[list(order)], [batch[i] for i in order]
