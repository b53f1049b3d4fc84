"""CSKD: partners of one class, background, and many pixels."""

import copy

import pytest
import torch
from logit_toys import ROI_SCORES, ZS, ZT, Y, images, on_background, on_rois

from mmkd.distiller import Distiller
from mmkd.functional.logit_distances import soft_kl
from mmkd.methods import cskd
from mmkd.methods.cskd import CSKD, partners
from mmkd.testing import classification_batch, tiny_classifier


def test_worked_numbers():
    student = torch.cat((ZS, ZT)).requires_grad_()
    both = CSKD(partners='together')
    loss = images(both, student, labels=torch.cat((Y, Y)))['loss']
    assert float(loss) == pytest.approx(0.4445310, abs=1e-7)
    loss.backward()
    assert student.grad[:3].abs().sum() > 0 and not student.grad[3:].any()
    same = torch.cat((ZS, ZS))
    assert float(images(both, same, labels=torch.cat((Y, Y)))['loss']) == pytest.approx(0)
    for labels in (torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([0, 0, 0])):
        with pytest.raises(ValueError, match='ClassPairSampler'):
            images(both, student[: len(labels)], labels=labels)


def test_one_pair():
    """[V] procedures B1; a constant added to z' changes nothing."""
    z = torch.tensor([[2.0, 0, 0], [0, 2, 0]], dtype=torch.float64, requires_grad=True)
    same = torch.tensor([0, 0])
    loss = images(CSKD(partners='together'), z, labels=same)['loss']
    assert float(loss) == pytest.approx(1.4224, abs=1e-4)
    loss.backward()
    assert z.grad[0].tolist() == pytest.approx([0.711, -0.711, 0], abs=1e-3)
    assert not z.grad[1].any()
    moved = z.detach() + torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    again = images(CSKD(partners='together'), moved, labels=same)['loss']
    assert float(again) == pytest.approx(float(loss), abs=1e-12)


def distiller(**options):
    torch.manual_seed(0)
    return Distiller(tiny_classifier(4), dict(it=CSKD(**options)), preflight=False).train()


def pairs():
    return classification_batch(8, (32, 32))  # the second half repeats the classes of the first


def test_partners_apart_have_no_cross_entropy_and_no_gradient():
    """The paper's: CE of the anchors alone, and a second pass behind theirs."""
    inputs, samples = pairs()
    model, plain = distiller(), distiller(weight=0)
    losses = model.loss(inputs, samples)
    wanted = plain.loss(inputs[:4], samples[:4])['loss_cls']
    assert torch.equal(losses['loss_cls'], wanted)
    with torch.no_grad():
        partner = plain.student(inputs[4:])
    anchor = copy.deepcopy(distiller(weight=0)).student(inputs[:4])
    assert torch.equal(losses['kd.it.loss'], soft_kl(anchor, partner, 4.0).mean())
    for key, value in plain.student.state_dict().items():
        assert torch.equal(model.student.state_dict()[key], value), key


def test_weight_0_is_plain_training_with_all_images():
    inputs, samples = pairs()
    found = distiller(weight=0).loss(inputs, samples)
    stock = distiller(weight=0).student(inputs, samples, mode='loss')
    assert torch.equal(found['loss_cls'], stock['loss_cls'])


@pytest.mark.parametrize(('statistics', 'passes'), [(True, 2), (False, 1)])
def test_statistics_of_the_second_pass(statistics, passes):
    model = distiller(statistics=statistics)
    model.loss(*pairs())
    counts = {int(b) for n, b in model.named_buffers() if n.endswith('num_batches_tracked')}
    assert counts == {passes}


def test_batches_without_pairs_are_refused_before_the_student_runs():
    inputs, samples = pairs()
    with pytest.raises(ValueError, match='CSKD needs batches of anchors and then their partners'):
        distiller().loss(inputs[:3], samples[:3])
    with pytest.raises(ValueError, match='partners must be one of'):
        CSKD(partners='none')


def test_two_objectives_cannot_hold_images_back():
    model = Distiller(tiny_classifier(4), dict(a=CSKD(), b=CSKD()), preflight=False)
    with pytest.raises(ValueError, match='objectives a, b each take images at the end'):
        model.loss(*pairs())


def test_a_peer_takes_its_partners_together():
    peers = dict(other=tiny_classifier(4))
    objective = CSKD(learner='other')
    with pytest.raises(ValueError, match="learner='other' is a peer; set partners='together'"):
        Distiller(tiny_classifier(4), dict(it=objective), peers=peers)


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
