"""What is known of one image that is to be classified."""

import numpy as np
import pytest
import torch

from mmkd.structures import ClassSample


@pytest.mark.parametrize('label', [2, torch.tensor(2), torch.tensor([2.0]), np.int64(2)])
def test_a_label_in_any_form(label):
    sample = ClassSample().set_gt_label(label)
    assert sample.gt_label.tolist() == [2] and sample.gt_label.dtype == torch.long


def test_scores_and_predictions():
    sample = ClassSample(metainfo=dict(sample_idx=7)).set_gt_score(torch.tensor([0.2, 0.8]))
    sample.set_prediction(torch.tensor([0.1, 0.7, 0.2]))
    assert sample.pred_label.tolist() == [1] and sample.gt_score.tolist() == pytest.approx(
        [0.2, 0.8]
    )
    assert sample.sample_idx == 7
    moved = sample.to('meta')
    assert moved.pred_score.is_meta and moved.sample_idx == 7


def test_only_tensors_are_scores():
    with pytest.raises(AssertionError):
        ClassSample().set_gt_score([0.5, 0.5])
