"""Cheaper teachers: options are applied in the right order and refused where they change much."""

import copy

import pytest
import torch
from torch import nn

from mmkd.families import two_stage
from mmkd.methods.cwd import CWD
from mmkd.plan import Plan, teacher_options
from mmkd.teacher import Teacher, build_model
from mmkd.testing import ToyNet, detection_batch, tiny_faster_rcnn, tiny_retinanet

ALL = dict(dtype='bf16', fuse_conv_bn=True, memory_format='channels_last')


def lively(config):
    """A model whose BatchNorms do something."""
    model = build_model(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return model


def planned(model, tap='neck', **options):
    """The teacher after the plan of a student that imitates it at ``tap``."""
    teacher = Teacher(copy.deepcopy(model), checkpoint='random', **options)
    student = copy.deepcopy(model)
    Plan(student, dict(teacher=teacher), dict(cwd=CWD(student=tap))).prepare()
    return teacher


def convolution(model):
    return model.backbone.layer1[0].conv1.weight


def test_fused_batch_norms_show_the_same():
    model = lively(tiny_retinanet(4))
    inputs, _ = detection_batch()
    teacher = planned(model, fuse_conv_bn=True)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in teacher.model.modules())
    for a, b in zip(model.extract_feat(inputs), teacher.model.extract_feat(inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_batch_norms_are_fused_before_they_are_rounded():
    model = lively(tiny_retinanet(4))
    exact = convolution(planned(model, fuse_conv_bn=True).model)
    both = convolution(planned(model, **ALL).model)
    assert both.dtype == torch.bfloat16 and both.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(both, exact.bfloat16())
    assert not torch.equal(both, convolution(model).bfloat16())


def test_a_tap_between_a_fused_pair_is_refused():
    with pytest.raises(ValueError, match="fuse_conv_bn=True changes what 'backbone.conv1' shows"):
        planned(lively(tiny_retinanet(4)), 'backbone.conv1', fuse_conv_bn=True)


def test_batch_norms_in_front_of_their_convolution_are_refused():
    """As in DDRNet and PIDNet: the neighbours by position do not even fit."""
    model = ToyNet(4)
    narrow, wide = nn.Conv2d(3, 6, 3, stride=8), nn.Sequential(nn.Conv2d(6, 8, 1))
    model.backbone = nn.Sequential(narrow, wide, nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    planned(model)
    with pytest.raises(
        ValueError, match='fuse_conv_bn=True cannot be applied to ToyNet .*Set fuse'
    ):
        planned(model, fuse_conv_bn=True)


def test_numbers_too_large_for_fp16_are_refused():
    model = ToyNet(4)
    nn.init.constant_(model.backbone[0].bias, 1e5)
    with pytest.raises(
        ValueError, match="dtype='fp16' changes what 'neck' shows.*set dtype='bf16'"
    ):
        planned(model, dtype='fp16')
    planned(model, dtype='bf16')


class Fractions(nn.Module):
    """Small numbers in which a rounding error is large, as behind a threshold."""

    def forward(self, x):
        return (x * 1e4) % 1


def test_rounding_that_a_network_amplifies_is_no_overflow():
    model = ToyNet(4)
    model.backbone = nn.Sequential(*model.backbone, Fractions())
    with pytest.raises(ValueError, match='All numbers fit fp16, but a step of the network'):
        planned(model, dtype='fp16')


def test_what_a_box_head_says_of_given_rois_is_compared(monkeypatch):
    answers = iter((1.0, 1.0, 1.5))  # plain, in channels_last, in channels_last

    def answer(model, feats, rois):
        assert rois.shape[1] == 5 and len(feats) == 5
        return torch.full((len(rois), 3), next(answers)), None

    monkeypatch.setattr(two_stage, 'roi_outputs', answer)
    teacher = Teacher(tiny_faster_rcnn(4), 'random', memory_format='channels_last')
    teachers, objectives = dict(teacher=teacher), dict(cwd=CWD(student='neck'))
    student = build_model(tiny_faster_rcnn(4))
    Plan(student, teachers, objectives).prepare()
    answers = iter((1.0, 1.5))
    with pytest.raises(
        ValueError, match="channels_last' changes what 'its box head on given RoIs'"
    ):
        Plan(student, teachers, objectives).prepare()


class Picky(ToyNet):
    """Runs in some precisions only."""

    allowed, reason = (torch.float32,), 'no kernel'

    def extract_feat(self, inputs):
        if inputs.dtype not in self.allowed:
            raise RuntimeError(self.reason)
        return super().extract_feat(inputs)


def test_a_fusion_that_cannot_be_checked_is_refused():
    teacher = Picky(4)
    teacher.allowed = ()
    teacher = Teacher(teacher, checkpoint='random', fuse_conv_bn=True)
    objective = CWD(student='neck', in_channels=4, out_channels=4)
    with pytest.raises(ValueError, match='folds BatchNorms by their position.*the probe'):
        Plan(ToyNet(4), dict(teacher=teacher), dict(cwd=objective)).prepare()


def test_a_precision_in_which_the_teacher_cannot_run_is_refused():
    with pytest.raises(ValueError, match="dtype='bf16' its forward pass stops: RuntimeError: no k"):
        planned(Picky(4), dtype='bf16')


def test_a_precision_that_only_runs_elsewhere_is_said(monkeypatch):
    said = []
    monkeypatch.setattr('mmkd.plan.teacher_options.print_log', lambda text, *_: said.append(text))
    model = Picky(4)
    model.reason = '"operator" not implemented for \'BFloat16\''
    teacher = planned(model, dtype='bf16')
    assert next(teacher.model.parameters()).dtype == torch.bfloat16
    assert "what dtype='bf16' changes could not be checked" in said[0]


@pytest.mark.parametrize('dtype', ['bf16', 'fp16'])
def test_what_a_module_makes_in_float32_meets_low_precision(dtype):
    """As positional encodings do in DETR and biases in Swin."""

    class Encoded(ToyNet):
        def extract_feat(self, inputs):
            features = super().extract_feat(inputs)
            encoding = torch.ones(1, 4, 1, 1)  # float32, and so is the sum
            return [self.neck.down(level + encoding) for level in features]

    teacher = planned(Encoded(4), 'neck', dtype=dtype)
    teacher.route = 'extract_feat'
    inputs, samples = detection_batch()
    assert teacher(inputs, samples, teacher.pixels)['neck'][0].isfinite().all()


def test_fast_is_every_option_that_is_right(monkeypatch):
    monkeypatch.setattr(teacher_options, 'native_bf16', lambda: True)
    model = lively(tiny_retinanet(4))
    fast, asked = planned(model, fast=True), planned(model, **ALL)
    assert fast.dtype == torch.bfloat16 and fast.memory_format == torch.channels_last
    assert [note.partition('=')[0] for note in fast.notes] == [
        'fuse_conv_bn',
        'dtype',
        'memory_format',
    ]
    states = fast.model.state_dict(), asked.model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
    assert len(states[0]) == len(states[1]) < len(model.state_dict())


def test_fast_keeps_to_the_machine_and_to_the_model(monkeypatch):
    monkeypatch.setattr(teacher_options, 'native_bf16', lambda: False)
    teacher = planned(lively(tiny_faster_rcnn(4)), fast=True)
    assert teacher.dtype is None and teacher.memory_format == torch.preserve_format
    assert [note.partition('=')[0] for note in teacher.notes] == ['fuse_conv_bn']


def test_fast_leaves_out_an_option_that_changes_the_taps(monkeypatch):
    monkeypatch.setattr(teacher_options, 'native_bf16', lambda: True)
    model = lively(tiny_retinanet(4))
    teacher = planned(model, 'backbone.conv1', fast=True)
    assert teacher.notes[0].startswith('without fuse_conv_bn=True: fuse_conv_bn=True changes what')
    assert (
        teacher.dtype == torch.bfloat16
        and teacher.model.state_dict().keys() == model.state_dict().keys()
    )
    wanted = model.bfloat16().state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in teacher.model.state_dict().items())


def test_the_plan_prints_what_fast_did(monkeypatch):
    monkeypatch.setattr(teacher_options, 'native_bf16', lambda: True)
    monkeypatch.setitem(teacher_options.LIMITS, torch.bfloat16, 0.0)
    monkeypatch.setattr(teacher_options, 'EXACT', 0.0)
    model = lively(tiny_retinanet(4))
    teacher = Teacher(copy.deepcopy(model), 'random', fast=True)
    plan = Plan(copy.deepcopy(model), dict(t=teacher), dict(cwd=CWD(student='neck'))).prepare()
    assert "  fast: without dtype='bf16': dtype='bf16' changes what 'neck' shows" in str(plan)
    assert teacher.dtype is None and next(teacher.model.parameters()).dtype == torch.float32
