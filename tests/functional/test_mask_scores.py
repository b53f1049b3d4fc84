"""Class scores of pixels made of masks: the values of the sheet, sizes, and what is refused."""

import pytest
import torch
from torch.nn import functional as F

from mmkd.functional.logit_distances import soft_kl
from mmkd.functional.mask_scores import EPS, MaskScores, pixel_scores, scores_of

X = torch.tensor([[[2.0, 0, 0], [0, 2, 0]]], dtype=torch.float64)
Y = torch.tensor([[[[4.0, 0, -4]], [[-4, 0, 4]]]], dtype=torch.float64)


def close(found, wanted):
    torch.testing.assert_close(found, torch.tensor(wanted).to(found), rtol=1e-6, atol=1e-7)


def test_two_queries_two_classes_three_pixels():
    """MC-1."""
    z = pixel_scores(X, Y)
    assert z.shape == (1, 2, 1, 3)
    close(z.exp()[0, 0, 0] - EPS, [0.7747468, 0.4467465, 0.1187462])
    close(z.exp().sum(1)[0, 0] - 2 * EPS, [0.8934930] * 3)
    close(z.softmax(1)[0, 0, 0], [0.8670981, 0.5, 0.1329019])
    student = torch.tensor([1.0, 0.0], dtype=torch.float64)
    close(soft_kl(student, z[0, :, 0, 0], 1.0), 0.0542975)
    # The scores themselves, taken for logits, would be far too flat.
    close((z.exp() - EPS).softmax(1)[0, 0, 0], [0.6583614, 0.5, 0.3416386])
    close(soft_kl(student, z.exp()[0, :, 0, 0] - EPS, 1.0), 0.0127839)


def test_masks_are_resized_before_the_sigmoid():
    """MC-2."""
    masks = torch.tensor([6.0, -2.0], dtype=torch.float64).view(1, 1, 1, 2).expand(1, 1, 2, 2)
    sure = torch.tensor([[[50.0, 0.0]]], dtype=torch.float64)  # P is the mask itself
    found = MaskScores(sure, masks).at((2, 4)).exp()[0, 0, 0] - EPS
    close(found, [0.9975274, 0.9820138, 0.5, 0.1192029])
    after = F.interpolate(masks.sigmoid(), (2, 4), mode='bilinear')[0, 0, 0]
    close(after, [0.9975274, 0.7779463, 0.3387840, 0.1192029])
    whole = MaskScores(sure, masks)
    assert torch.equal(whole.at(), whole.at((2, 2)))


def test_a_background_is_what_no_class_claims():
    p = pixel_scores(X, Y).exp() - EPS
    for place in range(3):
        z = pixel_scores(X, Y, background=place)
        assert z.shape == (1, 3, 1, 3)
        others = [k for k in range(3) if k != place]
        torch.testing.assert_close(z[:, others].exp() - EPS, p)
        torch.testing.assert_close(z[:, place].exp() - EPS, 1 - p.amax(1))
    both = pixel_scores(X[:, :1].repeat(1, 3, 1), Y[:, :1].repeat(1, 3, 1, 1) + 9, background=2)
    close(both[0, 2].exp(), [[EPS] * 3])  # P of three queries is more than 1


def test_gradients_are_bounded():
    """``|dL/dy_q| <= |p_s - p_t|_1``, also where P is near 0."""
    torch.manual_seed(0)
    y = (6 * torch.randn(1, 4, 3, 5, dtype=torch.float64) - 8).requires_grad_()
    z = pixel_scores(torch.randn(1, 4, 4, dtype=torch.float64), y)
    target = torch.randn_like(z).softmax(1)
    soft_kl(z.permute(0, 2, 3, 1), target.log().permute(0, 2, 3, 1), 1.0).sum().backward()
    limit = (z.softmax(1) - target).abs().sum(1, keepdim=True)
    assert (y.grad.abs() <= limit + 1e-12).all() and y.grad.abs().max() > 1e-3


@pytest.mark.parametrize('reverse', [False, True])
def test_heads_give_layers_in_lists_or_stacked(reverse):
    x, y = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 5, 6, 7)
    for value in ((x, y), (list(x), list(y))):
        scores = MaskScores.of(value[::-1] if reverse else value)
        assert torch.equal(scores.classes, x[-1]) and torch.equal(scores.masks, y[-1])
        assert scores.shape == (2, 3, 6, 7) == scores.at().shape
        assert scores.at((3, 3)).shape == (2, 3, 3, 3)


def test_a_map_of_scores_is_one_already():
    x, y = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 5, 6, 7)
    found = scores_of([[y[0].half()]])
    assert torch.equal(found, y[0].half().float())
    assert torch.equal(scores_of((x, y), 1).at(), MaskScores.of((x, y), 1).at())
    with pytest.raises(ValueError, match='made of classes'):
        scores_of([y[0, 0]])


def test_what_is_no_pair_of_classes_and_masks():
    x, y = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 5, 6, 7)
    for value in (y[0], [y, y], [x], None, [[], []][:0], [x, y, y]):
        with pytest.raises(ValueError, match='made of classes .* but its layers give'):
            MaskScores.of(value)
    with pytest.raises(ValueError, match='background=4 is no place beside 3 classes, 0 to 2'):
        MaskScores.of((x, y), background=4)


def test_half_precision_becomes_float32():
    x, y = torch.randn(1, 2, 5, 4).half(), torch.randn(1, 2, 5, 6, 7).half() - 30
    z = MaskScores.of((x, y)).at()
    assert z.dtype == torch.float32 and z.isfinite().all()


def test_padding_of_the_teacher_alone_is_cut_off():
    scores = MaskScores(torch.randn(1, 5, 4), torch.randn(1, 5, 8, 12))
    cropped = scores.cropped(torch.zeros(1, 3, 64, 96), torch.zeros(1, 3, 56, 80))
    assert torch.equal(cropped.masks, scores.masks[..., :7, :10])
    assert cropped.shape == (1, 3, 7, 10)


def test_constants():
    scores = MaskScores(torch.randn(1, 5, 4, requires_grad=True), torch.randn(1, 5, 2, 2))
    assert scores.at().requires_grad and not scores.detach().at().requires_grad
