"""Cross entropy with a target between teacher and label."""

import pytest
import torch
from segmentation_toys import probe_tensors
from torch.nn import functional as F

from mmkd.functional.mixed_target import mixed_cross_entropy, teacher_share

S, T, Y = probe_tensors()
KEEP = Y != 255
ROWS = [x.permute(0, 2, 3, 1)[KEEP] for x in (S, T)]
LABELS = Y[KEEP]


@pytest.mark.parametrize(
    ('policy', 'fixed', 'wanted'),
    [
        ('confidence', 0.5, 1.2090971),
        ('correct', 0.5, 1.2342913),
        ('fixed', 0.5, 1.2058329),
        ('fixed', 0.0, 1.1860090),
        ('fixed', 1.0, 1.2256569),
    ],
)
def test_mixed_cross_entropy(policy, fixed, wanted):
    p = ROWS[1].softmax(1)
    alpha = teacher_share(p, LABELS, policy, fixed)
    found = mixed_cross_entropy(ROWS[0], p, LABELS, alpha)
    assert float(found) == pytest.approx(wanted, abs=1e-6)
    if fixed == 0:
        assert float(found) == pytest.approx(float(F.cross_entropy(ROWS[0], LABELS)))


def test_one_pixel_where_the_teacher_doubts():
    p_t, label = torch.tensor([[0.7, 0.3]]), torch.tensor([1])
    alpha = teacher_share(p_t, label)
    assert float(alpha) == pytest.approx(0.3)
    student = torch.tensor([[0.8, 0.2]]).log()
    assert float(mixed_cross_entropy(student, p_t, label, alpha)) == (
        pytest.approx(1.3183161, abs=1e-6)
    )


def test_trust():
    teacher = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    labels = torch.tensor([0, 1])
    assert teacher_share(teacher, labels).tolist() == pytest.approx([0.7, 0.3])
    assert teacher_share(teacher, labels, 'correct').tolist() == [1, 0]
    assert teacher_share(teacher, labels, 'fixed', 0.25).tolist() == [0.25, 0.25]
    assert all(
        teacher_share(teacher[:0], labels[:0], p).shape == (0,) for p in ('confidence', 'correct')
    )


def test_weights_of_labels():
    """A weighted mean over rows; rows of weight 0 count for nothing."""
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3), torch.rand(4, 3).softmax(1)
    labels, alpha = torch.tensor([0, 1, 2, 1]), torch.rand(4)
    weight = torch.tensor([2.0, 1.0, 0.0])
    rows = [
        float(mixed_cross_entropy(*(x[i : i + 1] for x in (student, teacher, labels, alpha))))
        for i in range(4)
    ]
    wanted = (2 * rows[0] + rows[1] + rows[3]) / 4
    found = mixed_cross_entropy(student, teacher, labels, alpha, weight)
    assert float(found) == pytest.approx(wanted)
    nothing = mixed_cross_entropy(student, teacher, 0 * labels + 2, alpha, weight)
    assert float(nothing) == 0
    none = mixed_cross_entropy(student[:0], teacher[:0], labels[:0], alpha[:0])
    assert float(none) == 0, 'no labelled pixel at all'


def test_pixels_of_a_map_without_a_label_count_for_nothing():
    """As if the labelled ones were rows."""
    teacher, labels = T.softmax(1), Y.where(Y != 255, -1)
    alpha = teacher_share(teacher, labels.clamp(min=0))
    weight = torch.tensor([2.0, 1.0, 0.5], dtype=S.dtype)
    own, wanted = ROWS[0], ROWS[1].softmax(1)
    rows = mixed_cross_entropy(own, wanted, LABELS, teacher_share(wanted, LABELS), weight)
    torch.testing.assert_close(mixed_cross_entropy(S, teacher, labels, alpha, weight), rows)
    none = mixed_cross_entropy(S, teacher, torch.full_like(labels, -1), alpha, weight)
    assert float(none) == 0
