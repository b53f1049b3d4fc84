"""Small networks of mmdet's DETRs, and what their taps show in one step."""

import torch

from mmkd.families import queries
from mmkd.tap import Recorder, parse_taps
from mmkd.teacher import build_model
from mmkd.testing import (
    detection_batch,
    tiny_conditional_detr,
    tiny_dab_detr,
    tiny_ddq,
    tiny_deformable_detr,
    tiny_detr,
    tiny_dino,
)

BUILDERS = dict(
    detr=tiny_detr,
    conditional=tiny_conditional_detr,
    dab=tiny_dab_detr,
    patterns=lambda **k: tiny_dab_detr(num_patterns=2, **k),
    deformable=tiny_deformable_detr,
    two_stage=lambda **k: tiny_deformable_detr(dims=256, as_two_stage=True, **k),
    dino=tiny_dino,
    ddq=tiny_ddq,
)
KINDS = dict(
    detr='embedding',
    conditional='embedding',
    dab='box',
    patterns='box',
    deformable='pair',
    two_stage='selected',
    dino='selected',
    ddq='selected',
)


def network(name, width=4, **changes):
    torch.manual_seed(0)
    model = build_model(BUILDERS[name](width=width, **changes))
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * (parameter.abs().mean() + 0.1))
    return model


def seen(model, training=False, sizes=None):
    """What the taps show in one step; the images may be padded to 64 x 96."""
    inputs, samples = detection_batch(2, (64, 96), 2)
    for sample, size in zip(samples, sizes or [], strict=False):
        sample.set_metainfo(dict(img_shape=size))
    taps = [*queries.output_taps(model), queries.HIDDEN]
    taps += [*queries.memory_taps(model), *queries.point_taps(model)]
    recorder = Recorder(model.train(training), parse_taps(taps))
    with torch.random.fork_rng(), recorder.record(inputs) as side:
        torch.manual_seed(1)
        found = model(inputs, samples, mode='loss' if training else 'tensor')
    return side, found
