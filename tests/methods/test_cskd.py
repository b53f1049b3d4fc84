"""CSKD: partners of one class, background, and many pixels."""

import pytest
import torch
from logit_toys import ROI_SCORES, ZS, ZT, Y, images, on_background, on_rois

from mmkd.functional.logit_distances import soft_kl
from mmkd.methods import cskd
from mmkd.methods.cskd import CSKD, partners


def test_worked_numbers():
    student = torch.cat((ZS, ZT)).requires_grad_()
    loss = images(CSKD(), student, labels=torch.cat((Y, Y)))['loss']
    assert float(loss) == pytest.approx(0.4445310, abs=1e-7)
    loss.backward()
    assert student.grad[:3].abs().sum() > 0 and not student.grad[3:].any()
    same = torch.cat((ZS, ZS))
    assert float(images(CSKD(), same, labels=torch.cat((Y, Y)))['loss']) == pytest.approx(0)
    for labels in (torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([0, 0, 0])):
        with pytest.raises(ValueError, match='ClassPairSampler'):
            images(CSKD(), student[: len(labels)], labels=labels)


def test_partners_are_of_one_class_and_no_row_is_its_own():
    target = torch.tensor([2, 0, 2, 1, 0, 2, 0, 0])
    anchor, partner = partners(target)
    assert anchor.tolist() == [1, 4, 6, 7, 0, 2, 5], 'the only 1 has no partner'
    assert partner.tolist() == [6, 7, 1, 4, 5, 0, 2]
    assert torch.equal(target[anchor], target[partner])
    assert not len(partners(torch.arange(4))[0]) and not len(partners(target[:0])[0])


def test_background_rois_are_left_alone():
    found = on_rois(CSKD())
    assert float(found) == pytest.approx(
        float(soft_kl(ROI_SCORES[[0, 3]], ROI_SCORES[[3, 0]], 4.0).mean())
    )
    nothing = on_background(CSKD())
    assert float(nothing.detach()) == 0 and nothing.requires_grad


def test_thousands_of_pixels_are_thinned_out_for_cskd(monkeypatch):
    monkeypatch.setattr(cskd, 'MOST', 3)
    scores, labels = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 1])
    rows = [0, 2, 4]
    anchor, partner = partners(labels[rows])
    wanted = soft_kl(scores[rows][anchor], scores[rows][partner], 4.0).mean()
    assert float(on_rois(CSKD(), scores, labels)) == pytest.approx(float(wanted))
