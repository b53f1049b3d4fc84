"""QuantiseMap: the edit, and what is refused."""

import pytest
import torch

from mmkd.adapters.quantised_output import quantised_places
from mmkd.edits import QuantiseMap, edited
from mmkd.teacher import build_model
from mmkd.testing import detection_batch, tiny_faster_rcnn


def test_a_detector_with_rounded_maps():
    entry = dict(type='mmkd.QuantiseMap', at='neck', step=0.1, signed=True)
    torch.manual_seed(0)
    model = edited(tiny_faster_rcnn(4), [entry]).eval()
    torch.manual_seed(0)
    plain = build_model(tiny_faster_rcnn(4)).eval()
    model.load_state_dict(plain.state_dict())
    inputs, samples = detection_batch(1)
    with torch.no_grad():
        pairs = zip(model.extract_feat(inputs), plain.extract_feat(inputs), strict=True)
        for found, wanted in pairs:
            steps = found / 0.1
            assert (steps - steps.round()).abs().max() < 1e-4
            assert (found - wanted).abs().max() <= 0.05 + 1e-5
    assert quantised_places(model) == {'neck': (0.1, True, None)}
    assert len(model.predict(inputs, samples)) == 1


def test_it_trains():
    entry = dict(type='mmkd.QuantiseMap', at='backbone.layer4', step=0.1)
    model = edited(tiny_faster_rcnn(4), [entry]).train()
    loss, _ = model.parse_losses(model.loss(*detection_batch(2)))
    loss.backward()
    assert model.backbone.conv1.weight.grad.any()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(at='neck', step=0), 'step must be a finite number above 0'),
        (dict(at='neck', step=1, levels=1), 'levels must be a whole number of at least 2'),
        (dict(at='backbone.layer9', step=1), r"no module 'backbone.layer9'. Near-by .*layer4"),
        (dict(at='pool', step=1), "FasterRCNN has no module 'pool'"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        QuantiseMap(**options)(build_model(tiny_faster_rcnn(4)))


def test_once():
    edit = QuantiseMap('neck', 1.0)
    with pytest.raises(ValueError, match="'neck' is rounded already"):
        edit(edit(build_model(tiny_faster_rcnn(4))))
