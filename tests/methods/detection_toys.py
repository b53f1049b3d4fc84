"""Tiny mmdet detectors, one training step of a pair, for the tests of detection heads."""

import contextlib
import copy
import functools
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import nn

from mmkd.distiller import Distiller
from mmkd.objective import Objective
from mmkd.scales import Rescale
from mmkd.schedule import Progress
from mmkd.tap import Recorder, Trace, parse_taps
from mmkd.teacher import Teacher, build_model
from mmkd.untouched import untouched_random_state

CONFIGS = {
    'frcnn': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'cascade': 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
    'retinanet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'gfl': 'mmdet::gfl/gfl_r50_fpn_1x_coco.py',
    'fcos': 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'atss': 'mmdet::atss/atss_r50_fpn_1x_coco.py',
    'paa': 'mmdet::paa/paa_r50_fpn_1x_coco.py',
    'vfnet': 'mmdet::vfnet/vfnet_r50_fpn_1x_coco.py',
    'tood': 'mmdet::tood/tood_r50_fpn_1x_coco.py',
    'rtmdet': 'mmdet::rtmdet/rtmdet_m_8xb32-300e_coco.py',
    'yolox': 'mmdet::yolox/yolox_m_8xb8-300e_coco.py',
}
#: with strides 8, 16 and 32; here on the backbone and neck of the others
THREE_LEVELS = ('rtmdet', 'yolox')


@functools.cache
def _config(name: str) -> dict:
    from mmkd.config import load_config

    model = load_config(CONFIGS[name]).model
    if name in THREE_LEVELS:
        model = Config(dict(model=model.to_dict())).model
        model.backbone = dict(num_stages=4, out_indices=(0, 1, 2, 3), norm_eval=False)
        model.neck = dict(type='FPN', start_level=1, num_outs=3)
        model.bbox_head.norm_cfg = dict(type='BN')
        model.data_preprocessor.pop('batch_augments', None)
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
        if name in ('gfl', 'fcos', 'atss', 'paa', 'vfnet', 'tood'):
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
        logarithms = {'yolox': 'multi_level_conv_reg', 'rtmdet': 'rtm_reg'}.get(name, '')
        for layer in getattr(model.bbox_head, logarithms) if logarithms else []:
            nn.init.normal_(layer.weight, std=0.02)
    return model


def settled(model: nn.Module) -> nn.Module:
    """The same with statistics of BatchNorm that fit its weights, as a trained network's do."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(7)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
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
    with in_epoch(0):
        losses = distiller(inputs, samples() if batch is None else batch, mode='loss')
    return losses, seen[0]


def halved_step(objective: Objective, student: nn.Module, teacher: nn.Module) -> tuple[dict, Trace]:
    """The same with a teacher on images of twice the side."""
    student.data_preprocessor.batch_augments = nn.ModuleList([Rescale(0.5)])
    distiller = Distiller(student, {'o': objective}, _teacher(teacher), preflight=False).train()
    seen = []
    objective.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    full = torch.randn(2, 3, 192, 256, generator=torch.Generator().manual_seed(0))
    with in_epoch(0):
        losses = distiller(*Rescale(0.5)(full, samples(size=(192, 256))), mode='loss')
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


def recorded(model: nn.Module, taps: list[str], batch: list | None = None, epoch: int = 0) -> Trace:
    """A training step of a student alone, with values at ``taps``."""
    inputs = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    batch = samples() if batch is None else batch
    with in_epoch(epoch), Recorder(model, parse_taps(taps)).record(inputs) as side:
        model.train()(inputs, batch, mode='loss')
    return Trace(inputs, batch, side, None, Progress(0, 1))


@contextlib.contextmanager
def in_epoch(number: int) -> Iterator[None]:
    """As within a Runner, of which TOOD's targets ask the epoch; PAA's need two clusters."""
    from mmdet.models.dense_heads import paa_head

    hub, mixture = MessageHub.get_current_instance(), paa_head.skm
    hub.update_info('epoch', number)
    paa_head.skm = SimpleNamespace(GaussianMixture=Halves)
    try:
        yield
    finally:
        hub.runtime_info.pop('epoch')
        paa_head.skm = mixture


class Halves:
    """In place of scikit-learn's mixture of two: the smaller half of the losses is one cluster."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def fit(self, values: np.ndarray) -> None:
        self.middle = np.median(values)

    def predict(self, values: np.ndarray) -> np.ndarray:
        return (values[:, 0] > self.middle).astype(int)

    def score_samples(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0]
