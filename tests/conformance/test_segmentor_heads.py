"""Stock heads without a per-pixel classifier: where methods listen, and that they learn."""

import pytest
import torch
from stock_segmentors import OF_MASKS, STOCK, network
from torch import nn

from mmkd.analysis.batches import random_batch
from mmkd.distiller import Distiller
from mmkd.families import segmentor
from mmkd.registry import MODELS
from mmkd.tap import Recorder, Tap
from mmkd.teacher import Teacher, build_model
from mmkd.testing import segmentation_batch, tiny_pspnet

KERNELS = 'decode_head.kernel_generate_head.dropout@in[0]'
#: features by which pixels are told apart, and logits of pixels
TAPS = {
    'Segmenter': ('backbone[-1]', 'decode_head.forward()[-1]'),
    'KNet': (KERNELS, 'decode_head.forward()[-1]'),
    'PointRend': ('decode_head.0.conv_seg@in[0][0]', 'decode_head.0.conv_seg[0]'),
    'MaskFormer': ('decode_head.pixel_decoder[0]', 'decode_head.forward()@scores'),
    'Mask2Former': ('decode_head.pixel_decoder[0]', 'decode_head.forward()@scores'),
    'SAN': (
        'decode_head.side_adapter_network.mask_decoder.pix_mlp[-1]',
        'decode_head.forward()@scores',
    ),
    'PanopticMaskFormer': ('panoptic_head.pixel_decoder[0]', 'panoptic_head.forward()@scores'),
    'PanopticMask2Former': ('panoptic_head.pixel_decoder[0]', 'panoptic_head.forward()@scores'),
}
FEATURES = ('AT', 'IFVD', 'SKDPair', 'CIRKD', 'MGD', 'RKD', 'KA')
#: all on scores of pixels
LOGITS = (
    'KD', 'CWD', 'DIST', 'L2Logit', 'SKDPixel', 'TSL', 'SKDHolistic', 'LogitStandardization',
    'ESKD', 'WSLD', 'NoisyTeacher', 'PRDKD', 'BPKD', 'GradientRegions', 'CSCACE', 'CSKD', 'LSR',
    'ConfidencePenalty',
)  # fmt: skip
#: its head takes more than features
REFUSED = {'SAN': ('GradientRegions',)}
OPTIONS = {'SKDHolistic': dict(width=4), 'CSCACE': dict(pool='avg', pool_size=4)}


def losses(student: nn.Module, judge: nn.Module, methods: tuple = (), /, **options) -> dict:
    """One training step with these methods together."""
    objectives = {m: MODELS.get(f'mmkd.{m}')(**OPTIONS.get(m, {}), **options) for m in methods}
    model = Distiller(student, objectives, Teacher(judge, 'random'), preflight=False)
    inputs, samples = random_batch(student, (64, 64), 2, 3)
    return model.train()(inputs, samples, mode='loss')


def check_terms(found: dict, methods: tuple) -> None:
    for method in methods:
        terms = [v for k, v in found.items() if k.startswith(f'kd.{method}.loss')]
        loss = sum(terms)
        assert loss.isfinite() and loss.requires_grad and loss.abs() > 0, (method, loss)


@pytest.mark.parametrize('name', STOCK)
def test_where_pixels_are_told_apart(name):
    model, (features, logits) = network(name), TAPS[name]
    assert segmentor.feature_tap(model) == features
    assert segmentor.classifies_pixels(model)
    assert segmentor.logits_tap(model) == logits
    assert segmentor.on_logits(model, MODELS.get('mmkd.KD')(student=logits).student_taps)


@pytest.mark.parametrize('name', STOCK)
def test_methods_learn(name):
    methods = tuple(m for m in (*FEATURES, *LOGITS) if m not in REFUSED.get(name, ()))
    check_terms(losses(network(name), network(name, 1), methods), methods)


@pytest.mark.parametrize('name', [*OF_MASKS, 'KNet', 'Segmenter'])
def test_every_per_pixel_method_takes_them_beside_a_head_for_pixels(name):
    one, frozen = network(name), network(name, 1)
    pspnet = tiny_pspnet(4, num_classes=segmentor.classes(one))
    options = dict(resize='student') if name not in OF_MASKS else {}
    others = ('GradientRegions', 'CSCACE', 'CSKD', 'LSR', 'ConfidencePenalty')
    methods = tuple(m for m in LOGITS if m not in others)
    check_terms(losses(build_model(pspnet), frozen, methods, **options), methods)
    check_terms(losses(one, build_model(pspnet), methods, **options), methods)
    csc = ('CSCACE',)
    check_terms(losses(build_model(pspnet), frozen, csc, resize='student'), csc)


@pytest.mark.parametrize('name', [*OF_MASKS, 'Instances'])
def test_queries_are_matched(name):
    """Of the last decoder layer, and of all."""
    student, teacher = network(name), network(name, 1)
    found = losses(student, teacher, ('MatchedMasks',))
    check_terms(found, ('MatchedMasks',))
    assert found['kd.MatchedMasks.pairs'] == (5 if name == 'SAN' else 12)
    every = losses(student, teacher, ('MatchedMasks',), layers='all')
    assert every['kd.MatchedMasks.loss_masks'] > found['kd.MatchedMasks.loss_masks']


def test_masks_of_instances_are_matched_in_images_without_any():
    student, teacher = network('Instances'), network('Instances', 1)
    with pytest.raises(ValueError, match='for this pair MatchedMasks compares predictions'):
        losses(student, teacher, ('KD',))
    inputs, samples = random_batch(student, (64, 64), 2, 3)
    samples[1].gt_instances = samples[1].gt_instances[:0]
    objectives = dict(MatchedMasks=dict(type='mmkd.MatchedMasks'))
    model = Distiller(student, objectives, Teacher(teacher, 'random'), preflight=False).train()
    check_terms(model(inputs, samples, mode='loss'), ('MatchedMasks',))


@pytest.mark.parametrize('name', ['PanopticMask2Former', 'Mask2Former'])
def test_masks_of_instances_are_matched_with_no_others(name):
    message = 'stand for the same, but .* of objects; .*pixels take the teacher with the tap'
    with pytest.raises(ValueError, match=message):
        losses(network(name), network('Instances', 1), ('MatchedMasks',))


@pytest.mark.parametrize('name', ['MaskFormer', 'Mask2Former', 'SAN'])
def test_scores_are_the_logarithm_of_what_mmseg_predicts(name):
    model = network(name, 1)
    inputs, samples = random_batch(model, (64, 64), 2, 0)
    tap = Tap.parse(segmentor.logits_tap(model))
    teacher = Teacher(model, 'random')
    teacher.set_taps([tap])
    side = teacher(inputs, samples, teacher.pixels)
    with torch.no_grad():
        # SAN's preprocessor pads to a size of its own.
        wanted = model.encode_decode(side.inputs, [sample.metainfo for sample in samples])
    found = side.maps(tap)[0].at((64, 64))
    torch.testing.assert_close(found, (wanted + 1e-6).log(), rtol=1e-4, atol=1e-4)


def test_own_losses_draw_the_points_that_they_draw_alone():
    student, teacher = network('Mask2Former'), network('Mask2Former', 1)
    found = []
    for methods in ((), ('KD', 'CWD')):
        torch.manual_seed(3)
        found.append(losses(student, teacher, methods))
    assert set(found[0]) < set(found[1])
    assert all(torch.equal(found[1][key], value) for key, value in found[0].items())


@pytest.mark.parametrize('method', ['KD', 'DIST', 'SKDPixel'])
def test_instances_leave_pixels_without_a_class(method):
    """The reason is named, and a tap that adds the class."""
    things = network('Instances', 1)
    student = build_model(tiny_pspnet(4, num_classes=81))
    with pytest.raises(ValueError, match='segments instances of 80 classes') as error:
        losses(student, things, (method,))
    tap = 'panoptic_head.forward()@scores(background=80)'
    assert f"'{tap}'" in str(error.value)
    found = losses(student, things, (method,), teacher=tap, resize='student')
    check_terms(found, (method,))
    with pytest.raises(ValueError, match='student has 80 .*teacher (has )?81'):
        student = build_model(tiny_pspnet(4, num_classes=80))
        losses(student, things, (method,), teacher=tap, resize='student')


def test_unequal_classes():
    with pytest.raises(ValueError, match='student has 5 classes and the teacher 19'):
        student = build_model(tiny_pspnet(4, num_classes=5))
        losses(student, network('Mask2Former', 1), ('CWD',))
    with pytest.raises(ValueError, match='student has 19 classes and the teacher 150'):
        losses(network('Mask2Former'), network('MaskFormer', 1), ('KD',))


@pytest.mark.parametrize('name', ['Segmenter', 'Mask2Former'])
def test_unequal_strides_are_told_at_build_and_resize_helps(name):
    teacher = build_model(tiny_pspnet(4, num_classes=segmentor.classes(network(name))))
    with pytest.raises(ValueError, match="stride .* set resize='student'"):
        losses(network(name), teacher, ('AT',))
    assert losses(network(name), teacher, ('AT', 'SKDPair'), resize='student')['kd.AT.loss'] > 0


@pytest.mark.parametrize(
    'head',
    [
        dict(type='DAHead', pam_channels=4),
        dict(type='ANNHead', in_channels=[16, 32], in_index=[2, 3], project_channels=4),
    ],
    ids=lambda head: head['type'],
)
def test_a_dropout_with_other_uses(head):
    """DANet's three classifiers share it; ANN also has it behind its fusion."""
    config = tiny_pspnet(4)
    del config['decode_head']['pool_scales']
    config['decode_head'].update(head)
    model = build_model(config).train()
    tap = Tap.parse(segmentor.feature_tap(model))
    seen = []
    model.decode_head.conv_seg.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    recorder = Recorder(model, [tap])
    inputs, samples = segmentation_batch(2, (64, 64))
    model.decode_head.dropout.p = 0.0
    for mode in ('loss', 'tensor'):
        with recorder.record(inputs) as side:
            model(inputs, samples, mode=mode)
        assert [torch.equal(a, b) for a, b in zip(side[tap], [seen.pop()], strict=True)] == [True]
