"""TSD: the difference of top scores, and background."""

import pytest
import torch
from logit_toys import CE, ON_OBJECTS, ROI_SCORES, ZS, images, on_background, on_rois

from mmkd.methods.tsd import TSD, top_score_difference


def test_top_score_difference():
    assert float(top_score_difference(ZS, 2).mean()) == pytest.approx(0.3467698, abs=1e-7)
    loss = images(TSD(k=3))['loss']
    assert float(loss) == pytest.approx(0.4184812, abs=1e-7)
    assert float(0.6 * CE + 0.4 * loss) == pytest.approx(0.466489, abs=1e-6)
    assert float(images(TSD())['loss']) == float(loss), (
        'all three classes where there are but three'
    )
    assert float(top_score_difference(ZS + 5, 3).mean()) == pytest.approx(float(loss))
    assert float(top_score_difference(torch.zeros(1, 3), 3)) == 0
    with pytest.raises(ValueError, match='k must be a whole number of at least 2'):
        TSD(k=1)
    with pytest.raises(ValueError, match=r'k must lie in \[2, 3\].*found 4'):
        images(TSD(k=4))


def test_background_rois_are_left_alone():
    found = on_rois(TSD(k=2))
    assert float(found) == pytest.approx(
        float((lambda p: (p.amax(1) - p.amin(1)).mean())(ROI_SCORES[ON_OBJECTS].softmax(1)[:, :2]))
    )
    nothing = on_background(TSD(k=2))
    assert float(nothing.detach()) == 0 and nothing.requires_grad
