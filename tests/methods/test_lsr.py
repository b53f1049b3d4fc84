"""LSR: the loss that label smoothing adds."""

import pytest
from logit_toys import CE, ON_OBJECTS, ROI_SCORES, ZS, Y, images, on_background, on_rois
from torch.nn import functional as F

from mmkd.methods.lsr import LSR, cross_entropy_to_uniform


def test_cross_entropy_of_the_fixture():
    assert float(CE) == pytest.approx(0.4984939, abs=1e-7)


def test_is_label_smoothing():
    uniform = images(LSR())['loss']
    assert float(uniform) == pytest.approx(float(cross_entropy_to_uniform(ZS)), rel=1e-6)
    total = 0.9 * CE + LSR.default_weight * uniform
    assert float(total) == pytest.approx(0.5818272, abs=1e-7)
    assert float(total) == pytest.approx(
        float(F.cross_entropy(ZS, Y, label_smoothing=0.1)), rel=1e-6
    )


def test_background_rois_are_left_alone():
    found = on_rois(LSR())
    assert float(found) == pytest.approx(float(cross_entropy_to_uniform(ROI_SCORES[ON_OBJECTS])))
    nothing = on_background(LSR())
    assert float(nothing.detach()) == 0 and nothing.requires_grad
