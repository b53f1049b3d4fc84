"""The probe: both modes, other sizes and channels, and what stopped it."""

import pytest
import torch
from plan_toys import distil, step
from torch import nn

from mmkd.plan.places import candidates
from mmkd.plan.probe import Request, first_that_runs, probe, probe_all
from mmkd.tap import TapError, parse_taps
from mmkd.teacher import build_model
from mmkd.testing import (
    ToyNet,
    classification_batch,
    segmentation_batch,
    tiny_faster_rcnn,
    tiny_pspnet,
)


class TwoModes(ToyNet):
    """In training the neck also gives an auxiliary map, as DDRNet's and PIDNet's backbones do."""

    position = 0

    def __init__(self, width=4, wider=2):
        super().__init__(width)
        extra = nn.Conv2d(width, wider, 1)

        class Neck(type(self.neck)):
            def forward(neck, x):
                maps = [super().forward(x)[0]]
                if neck.training:
                    maps.insert(TwoModes.position % 2, extra(x))
                return tuple(maps)

        self.neck.__class__, self.neck.extra = Neck, extra

    def extract_feat(self, inputs):
        return [x for x in super().extract_feat(inputs) if x.shape[1] == self.head.fc.in_features]


class Large(ToyNet):
    """Cannot run on fewer than 300 pixels."""

    def extract_feat(self, inputs):
        if inputs.shape[2] < 300:
            raise RuntimeError(f'{inputs.shape[2]} pixels are too few')
        return super().extract_feat(inputs)


class Broken(ToyNet):
    """Its neck cannot run without a batch of data."""

    def extract_feat(self, inputs):
        if not getattr(self, 'mended', False):
            raise AttributeError('gt_instances')
        return super().extract_feat(inputs)


class Branches(ToyNet):
    """In training three maps of each image, as a TridentNet."""

    def __init__(self):
        super().__init__()
        self.backbone.__class__ = type(
            'Trident',
            (nn.Sequential,),
            dict(
                forward=lambda s, x: nn.Sequential.forward(s, x).repeat(
                    3 if s.training else 1, 1, 1, 1
                )
            ),
        )


def test_a_map_that_only_training_has_is_refused_with_the_tap_that_is_meant():
    for position, meant in ((0, 'neck[1]'), (1, 'neck[0]')):
        TwoModes.position = position
        with pytest.raises(
            ValueError, match='In training.*2x32x32.*in evaluation 4x32x32'
        ) as error:
            distil(TwoModes(), ToyNet(), student='neck', teacher='neck[0]', adapt=None)
        advice = f"student='{meant}', teacher='neck[0]'"
        assert advice in str(error.value)
        found = distil(TwoModes(), ToyNet(), student=meant, teacher='neck[0]', adapt=None)
        assert step(found)['kd.x.loss'].isfinite()
    TwoModes.position = 0


def test_the_plan_knows_the_widths_of_training():
    """By a named index the auxiliary map may be asked for; the adapter then has its width."""
    TwoModes.position = 1
    found = distil(TwoModes(4, wider=3), ToyNet(8), student='neck[1]', teacher='neck[0]')
    assert '1x1 conv 3 -> 8' in str(found.plan)
    assert step(found)['kd.x.loss'].isfinite()
    TwoModes.position = 0


def test_the_teacher_is_probed_in_evaluation():
    found = distil(ToyNet(), TwoModes(), student='neck[0]', teacher='neck')
    assert [level.channels for level in found.plan.seen['x.teacher']] == [4]
    assert step(found)['kd.x.loss'].isfinite()


def test_the_probe_in_training_leaves_nothing_behind():
    model = ToyNet(norm='BN', dropout=0.5)
    model.register_buffer('counter', torch.zeros(1))
    buffers, random = {k: v for k, v in model.named_buffers()}, torch.get_rng_state()
    values = {k: v.clone() for k, v in buffers.items()}
    model.head.eval()
    taps = parse_taps(['backbone', 'head.fc'])
    model.register_forward_pre_hook(lambda m, _: m.counter.add_(1) and None)
    side = probe(model, taps, training=True)
    assert len(side['head.fc']) == 1 and torch.equal(random, torch.get_rng_state())
    assert model.training and not model.head.training and model.backbone.training
    for name, buffer in model.named_buffers():
        assert buffer is buffers[name] and torch.equal(buffer, values[name]), name


def test_networks_that_need_larger_images_are_probed_with_them():
    found = distil(Large(), ToyNet(8), student='neck')
    assert [level.stride for level in found.plan.seen['x.student']] == [8, 16]
    assert found.plan.seen['x.teacher'][0].shape == (8, 64, 64)  # at the same size
    assert step(found, classification_batch(2, (320, 320)))['kd.x.loss'].isfinite()
    assert dict(candidates(Large()))['neck'][0].stride == 8


def test_the_size_of_anchors_comes_first():
    model = ToyNet()
    model.bbox_head = nn.Module()
    model.bbox_head.prior_generator = type('Generator', (), dict(input_size=300))()
    assert probe_all([Request('student', model, parse_taps('neck'))])[0].size == 300
    model.bbox_head, model.test_cfg = None, dict(crop_size=(320, 480))
    assert probe_all([Request('student', Large(), parse_taps('neck'))])[0].size == 512


def test_what_stopped_the_probe_is_part_of_the_message():
    reason = r'The probe of the student stopped: AttributeError: gt_instances\.$'
    with pytest.raises(ValueError, match=reason):
        distil(Broken(), ToyNet(), student='neck')
    with pytest.raises(ValueError, match=r'FitNet.*could not be probed.*stopped: AttributeError'):
        distil(Broken(), ToyNet(), 'FitNet', student='neck[0]')


def test_a_wrong_index_says_how_many_there_are():
    with pytest.raises(TapError, match=r"objective 'x': Tap 'neck\[5\]' .*'neck' gave 2 tensors"):
        distil(ToyNet(), ToyNet(), student='neck[5]')


def test_a_typed_width_that_the_probe_refutes_is_refused_at_build():
    options = dict(student='neck[0]', in_channels=4, out_channels=9)
    with pytest.raises(ValueError, match='out_channels=9, but the tap shows 4 channels'):
        distil(Broken(), ToyNet(), **options)


def test_one_map_may_be_compared_with_two():
    taps = dict(student=['neck[0]', 'neck[0]'], teacher='neck', resize='student')
    assert step(distil(ToyNet(), ToyNet(), **taps))['kd.x.loss'] > 0


def test_branches_that_repeat_the_images_are_refused():
    with pytest.raises(ValueError, match='backbone of Branches gives 3 maps of each image'):
        distil(Branches(), ToyNet(), student='neck')
    assert step(distil(ToyNet(), Branches(), student='neck'))['kd.x.loss'].isfinite()


def test_a_head_that_cannot_run_does_not_hide_the_neck():
    model = tiny_faster_rcnn(4)
    found = distil(model, model, student='neck')
    broken = found.student
    broken.rpn_head.forward = None
    taps = parse_taps(['neck', 'rpn_head.rpn_conv'])
    (one,) = probe_all([Request('student', broken, taps)])
    assert one.reason and len(one.levels(taps[:1])) == 5 and one.levels(taps) is None


def test_auxiliary_heads_are_probed_too():
    model = build_model(tiny_pspnet(4, auxiliary=True))
    taps = parse_taps(['backbone', 'auxiliary_head.conv_seg', 'decode_head.conv_seg'])
    for training in (False, True):
        side = probe(model, taps, training=training)
        assert [len(side[tap]) for tap in taps] == [4, 1, 1]
    assert 'extract_feat' not in model.__dict__


def test_auxiliary_heads_of_unequal_strides_are_refused_by_dist():
    model = tiny_pspnet(4, auxiliary=True)
    finer = tiny_pspnet(8, auxiliary=True, auxiliary_head=dict(in_index=0, in_channels=8))
    with pytest.raises(
        ValueError, match='auxiliary heads give maps of strides 8 and 4; set resize'
    ):
        distil(model, finer, 'DIST')
    for options in (dict(auxiliary=0), dict(resize='student')):
        assert step(distil(model, finer, 'DIST', **options), segmentation_batch())


def test_heads_of_regions_are_probed_with_few_of_the_proposals():
    model = build_model(tiny_faster_rcnn(8))
    model.rpn_head.test_cfg.update(nms_pre=500, max_per_img=500)
    taps = parse_taps('roi_head.bbox_head')
    side = probe(model, taps)
    assert len(side[taps[0]][0]) == 8
    assert model.rpn_head.test_cfg.max_per_img == 500


def test_the_first_size_that_runs():
    def run(size):
        if size < 3:
            raise RuntimeError(f'{size} is too small')
        return -size

    assert first_that_runs([1, 2, 3, 4], run) == (3, -3)
    with pytest.raises(RuntimeError, match='2 is too small'):
        first_that_runs([1, 2], run)
