"""Every method on mmdet's own detectors, made narrow: two training steps, or refused at build.

What should work is what the tables say: ``families`` and ``only`` of each method. All methods that
work for a pair are trained together, so that a pair costs two steps whatever their number.
"""

import functools
import re

import numpy as np
import pytest
import torch
from cases import method
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn

from mmkd.config import load_config
from mmkd.distiller import Distiller
from mmkd.families import DETECTORS, family_of
from mmkd.methods import names
from mmkd.teacher import Teacher, build_model
from mmkd.testing import detection_batch, merged, shrink

LAYERS = dict(num_queries=10, encoder=dict(num_layers=1), decoder=dict(num_layers=2))
#: family, stock config, and changes of it
STOCK = {
    'FasterRCNN': ('two_stage', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', {}),
    'CascadeRCNN': ('two_stage', 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', {}),
    'MaskRCNN': ('instance', 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', {}),
    'RetinaNet': ('anchor', 'retinanet/retinanet_r50_fpn_1x_coco.py', {}),
    'ATSS': ('anchor', 'atss/atss_r50_fpn_1x_coco.py', {}),
    'GFL': ('anchor', 'gfl/gfl_r50_fpn_1x_coco.py', {}),
    'FCOS': ('anchor_free', 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', {}),
    'RepPointsDetector': (
        'anchor_free',
        'reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py',
        {},
    ),
    'YOLOX': ('yolo', 'yolox/yolox_s_8xb8-300e_coco.py', {}),
    'YOLOV3': ('yolo', 'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py', {}),
    'DeformableDETR': ('detr', 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', LAYERS),
}
SWIN = {
    'SwinRetinaNet': ('anchor', 'swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py', {}),
    'SwinMaskRCNN': ('instance', 'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', {}),
}
CASCADE = 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
MORE = {**SWIN, 'CascadeMaskRCNN': ('instance', CASCADE, {})}
ROIS = ('KD', 'DKD', 'Chen2017', 'GID')
COMMON = dict(level_map='common')
#: student, teacher, methods beside those for any detector, and options of all
PAIRS = {
    'FCOS for RetinaNet': ('RetinaNet', 'FCOS', (), {}),
    'Swin for ResNet': ('RetinaNet', 'SwinRetinaNet', ('Chen2017', 'GID'), {}),
    # Cascade's boxes are for all classes at once, which MimicHead refuses.
    'Cascade for Faster R-CNN': ('FasterRCNN', 'CascadeRCNN', ROIS, {}),
    'Mask for Faster R-CNN': ('FasterRCNN', 'MaskRCNN', (*ROIS, 'MimicHead'), {}),
    'Swin for Mask R-CNN': ('MaskRCNN', 'SwinMaskRCNN', (*ROIS, 'MimicHead', 'MaskKD'), {}),
    'Cascade Mask for Mask R-CNN': ('MaskRCNN', 'CascadeMaskRCNN', (*ROIS, 'MaskKD'), {}),
    'Mask for Cascade Mask R-CNN': ('CascadeMaskRCNN', 'MaskRCNN', (*ROIS, 'MaskKD'), {}),
    'GFL for RepPoints': ('RepPointsDetector', 'GFL', (), {}),
    'YOLOX for YOLOv3': ('YOLOV3', 'YOLOX', (), {}),
    'RetinaNet for DETR': ('DeformableDETR', 'RetinaNet', (), COMMON),
    'Faster R-CNN for FCOS': ('FCOS', 'FasterRCNN', (), COMMON),
}
#: untrained boxes are small
OPTIONS = {'GID': dict(min_side=0.0)}


def works(name: str, detector: str) -> bool:
    """What the tables say."""
    family, only = STOCK[detector][0], method(name).only
    same = not method(name).teacher_families
    return same and family in method(name).families and detector in only.get(family, [detector])


ANY = tuple(name for name in names() if set(DETECTORS) <= set(method(name).families))
GRID = [(detector, name) for detector in STOCK for name in names()]
YES = [case for case in GRID if works(*case[::-1])]
NO = [case for case in GRID if not works(*case[::-1])]


@functools.cache
def network(detector: str, factor: int) -> nn.Module:
    """A stock model whose widths are divided by ``factor``; students 8, teachers 4."""
    _, path, changes = {**STOCK, **MORE}[detector]
    seed, factor = factor, 8 if detector == 'DeformableDETR' else factor  # decoders of one width
    config = merged(shrink(load_config(f'mmdet::{path}').model.to_dict(), factor), changes)
    if detector in SWIN:
        config['backbone']['convert_weights'] = False
    if 'roi_head' in config:
        stages = config['train_cfg']['rcnn']
        for stage in stages if isinstance(stages, list) else [stages]:
            stage['sampler']['num'] = 16
        config['train_cfg']['rpn_proposal'].update(nms_pre=100, max_per_img=100)
    torch.manual_seed(seed)
    model = build_model(Config(dict(model=config, default_scope='mmdet')))
    model.init_weights()
    with torch.no_grad():  # heads begin with next to nothing
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * (parameter.abs().mean() + 0.1))
    return model


def batch(seed: int) -> tuple[torch.Tensor, list]:
    """Two images of two objects, with masks."""
    from mmdet.structures.mask import BitmapMasks

    inputs, samples = detection_batch(2, (64, 96), seed=seed)
    for sample in samples:
        masks = np.zeros((2, 64, 96), np.uint8)
        for mask, box in zip(masks, sample.gt_instances.bboxes.int().tolist(), strict=True):
            mask[box[1] : box[3], box[0] : box[2]] = 1
        sample.gt_instances.masks = BitmapMasks(masks, 64, 96)
    return inputs, samples


def distiller(student: str, teacher: str, methods: tuple, options: dict) -> Distiller:
    objectives = {
        name: dict(type=f'mmkd.{name}', **OPTIONS.get(name, {}), **options) for name in methods
    }
    frozen = Teacher(network(teacher, 4), checkpoint='random')
    return Distiller(network(student, 8), objectives, frozen, preflight=False)


def gradient(loss: torch.Tensor, module: nn.Module) -> float:
    """How strongly a module's parameters feel a loss."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return sum(float(g.abs().sum()) for g in found if g is not None)


@functools.cache
def trained(student: str, teacher: str, methods: tuple, options: tuple = ()) -> dict:
    """Two training steps: for each method, (loss, gradient of the student's neck) of each."""
    torch.manual_seed(0)
    model = distiller(student, teacher, methods, dict(options)).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    optim_wrapper = OptimWrapper(optimizer, clip_grad=dict(max_norm=1.0))
    before = [p.detach().clone() for p in model.student.neck.parameters()]
    seen = {name: [] for name in methods}
    for seed in range(2):
        losses = model(*batch(seed), mode='loss')
        for name in methods:
            loss = sum(v for k, v in losses.items() if k.startswith(f'kd.{name}.loss'))
            seen[name].append((float(loss.detach()), gradient(loss, model.student.neck)))
        optim_wrapper.update_params(model.parse_losses(losses)[0])
    after = list(model.student.neck.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.isfinite().all() for p in model.parameters())
    return seen


def check(steps: list) -> None:
    assert len(steps) == 2
    for loss, felt in steps:
        assert np.isfinite([loss, felt]).all() and loss > 0 and felt > 0, steps


@pytest.mark.parametrize('detector', STOCK)
def test_stock_detectors_are_of_these_families(detector):
    model = network(detector, 8)
    assert (type(model).__name__, family_of(model)) == (detector, STOCK[detector][0])


@pytest.mark.parametrize(('detector', 'name'), YES)
def test_yes(detector, name):
    methods = tuple(n for d, n in YES if d == detector)
    check(trained(detector, detector, methods)[name])


@pytest.mark.parametrize(('detector', 'name'), NO)
def test_no(detector, name):
    """Refused in one sentence, with the detector's name and a method or tap that works instead."""
    with pytest.raises(ValueError) as error:
        distiller(detector, detector, (name,), {})
    message = str(error.value)
    assert not re.search(r'[.!?] +[A-Z]', message), message
    assert detector in message and name in message
    instead = [n for n in names() if n != name and re.search(rf'\b{n}\b', message)]
    assert 'name taps' in message or any(works(n, detector) for n in instead), message


@pytest.mark.parametrize(('pair', 'name'), [(p, n) for p in PAIRS for n in (*ANY, *PAIRS[p][2])])
def test_between_detectors(pair, name):
    student, teacher, more, options = PAIRS[pair]
    check(trained(student, teacher, (*ANY, *more), tuple(options.items()))[name])
