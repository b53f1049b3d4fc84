"""mmseg's own heads without a per-pixel classifier: where methods listen, and that they learn."""

import pytest
import torch
from stock_segmentors import STOCK, network
from torch import nn

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
    'MaskFormer': ('decode_head.pixel_decoder[0]', None),
    'Mask2Former': ('decode_head.pixel_decoder[0]', None),
    'SAN': ('decode_head.side_adapter_network.mask_decoder.pix_mlp[-1]', None),
}
FEATURES = ('AT', 'IFVD', 'SKDPair', 'CIRKD', 'CWD', 'MGD', 'RKD', 'KA')
LOGITS = ('KD', 'DIST', 'L2Logit', 'SKDPixel', 'CWD', 'BPKD', 'GradientRegions')


def losses(name: str, teacher: nn.Module, methods: tuple, **options) -> dict:
    """One training step with these methods together."""
    objectives = {m: MODELS.get(f'mmkd.{m}')(**options) for m in methods}
    model = Distiller(network(name), objectives, Teacher(teacher, 'random'), preflight=False)
    inputs, samples = segmentation_batch(2, (64, 64))
    return model.train()(inputs, samples, mode='loss')


@pytest.mark.parametrize('name', STOCK)
def test_where_pixels_are_told_apart(name):
    model, (features, logits) = network(name), TAPS[name]
    assert segmentor.feature_tap(model) == features
    assert segmentor.classifies_pixels(model) == (logits is not None)
    if logits is not None:
        assert segmentor.logits_tap(model) == logits
        assert segmentor.on_logits(model, MODELS.get('mmkd.KD')(student=logits).student_taps)


@pytest.mark.parametrize('name', STOCK)
def test_methods_learn(name):
    methods = FEATURES if TAPS[name][1] is None else (*FEATURES, *LOGITS)
    found = losses(name, network(name, 1), tuple(dict.fromkeys(methods)))
    for method in methods:
        terms = [v for k, v in found.items() if k.startswith(f'kd.{method}.loss')]
        loss = sum(terms)
        assert loss.isfinite() and loss.requires_grad and loss > 0, (method, loss)


@pytest.mark.parametrize('name', [name for name, taps in TAPS.items() if taps[1] is None])
@pytest.mark.parametrize('method', ['KD', 'DIST', 'SKDPixel'])
def test_mask_scores_are_no_pixel_logits(name, method):
    """The reason is named, and with it methods that were tried on this pair."""
    with pytest.raises(ValueError, match='classifies masks and not pixels') as error:
        losses(name, network(name, 1), (method,))
    message = str(error.value)
    assert type(network(name).decode_head).__name__ in message and 'backbone' not in message
    assert message.endswith('for this pair CWD and SKDPair compare features.')


@pytest.mark.parametrize('name', ['Segmenter', 'Mask2Former'])
def test_unequal_strides_are_told_at_build_and_resize_helps(name):
    teacher = build_model(tiny_pspnet(4, num_classes=network(name).num_classes))
    with pytest.raises(ValueError, match="stride .* set resize='student'"):
        losses(name, teacher, ('AT',))
    assert losses(name, teacher, ('AT', 'SKDPair'), resize='student')['kd.AT.loss'] > 0


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
