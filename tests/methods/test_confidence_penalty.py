"""ConfidencePenalty: entropy, its threshold, and background."""

import math

import pytest
import torch
from logit_toys import CE, ON_OBJECTS, ROI_SCORES, ZS, Y, images, on_background, on_rois

from mmkd.methods.confidence_penalty import ConfidencePenalty, entropy


def test_worked_numbers():
    assert float(entropy(ZS).mean()) == pytest.approx(0.894995, abs=1e-6)
    assert float(CE - 0.1 * entropy(ZS).mean()) == pytest.approx(0.4089945, abs=1e-7)
    loss = images(ConfidencePenalty())['loss']
    assert float(loss) == pytest.approx(float(torch.tensor(3.0).log() - entropy(ZS).mean()))
    assert float(images(ConfidencePenalty(), torch.ones(2, 3), labels=Y[:2])['loss']) == (
        pytest.approx(0, abs=1e-6)
    )


def test_entropy_above_the_threshold_earns_nothing():
    student = torch.tensor([[1.0, 2, 3], [0.5, -0.5, 0], [0, 4, -1]]).requires_grad_()
    per_row = entropy(student.detach())
    threshold = float(per_row.sort().values[:2].mean())
    images(ConfidencePenalty(threshold=threshold), student)['loss'].backward()
    felt = student.grad.abs().sum(1) > 1e-9
    assert felt.tolist() == (per_row < threshold).tolist() and felt.any() and not felt.all()


def test_background_rois_are_left_alone():
    found = on_rois(ConfidencePenalty())
    assert float(found) == pytest.approx(
        float(math.log(3) - entropy(ROI_SCORES[ON_OBJECTS]).mean())
    )
    nothing = on_background(ConfidencePenalty())
    assert float(nothing.detach()) == 0 and nothing.requires_grad


def test_options_out_of_range():
    with pytest.raises(ValueError, match='threshold must be'):
        ConfidencePenalty(threshold=-1)
