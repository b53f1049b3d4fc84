"""IFVD against worked numbers and the loop over images and classes."""

import copy

import pytest
import torch
from segmentation_toys import (
    ToySegmentor,
    check_memory,
    crop_labels,
    make_step,
    prepare,
    probe_tensors,
)
from torch import nn
from torch.nn import functional as F

from mmkd.methods.ifvd import IFVD, class_similarity, intra_class_variation

S, T, Y = probe_tensors()
K = 3


def slow_similarity(features, labels):
    result = torch.ones_like(labels, dtype=features.dtype)
    for n in range(len(features)):
        for k in range(K):
            where = labels[n] == k
            centre = features[n][:, where].sum(1) / (where.sum() + 1e-6)
            pixels = features[n][:, where].T
            result[n][where] = F.cosine_similarity(pixels, centre[None].expand_as(pixels), 1, 1e-8)
    return result


def test_probe():
    assert float(intra_class_variation(S, T, Y, K)) == pytest.approx(0.2714549, abs=1e-6)
    assert float(intra_class_variation(S, T, Y, K, True)) == pytest.approx(0.2895519, abs=1e-6)
    found = intra_class_variation(S.float(), T.float(), Y, K)
    assert float(found) == pytest.approx(0.2714549, rel=1e-4)
    row = class_similarity(S, Y, K)[0, 0]
    assert row.tolist() == pytest.approx([1, 0.0142134, -0.1348400, 0.1107273], abs=1e-6)


def test_transcription_and_its_gradient():
    s = S.clone().requires_grad_()
    found = torch.autograd.grad(intra_class_variation(s, T, Y, K), s)[0]
    slow = (slow_similarity(s, Y) - slow_similarity(T, Y)).square().mean()
    torch.testing.assert_close(found, torch.autograd.grad(slow, s)[0])
    assert torch.autograd.gradcheck(lambda x: intra_class_variation(x, T, Y, K), s)


def test_student_of_another_width():
    wide = torch.cat((S, 0.5 * S[:, :1] + 0.1), 1)
    assert float(intra_class_variation(wide, T, Y, K)) == pytest.approx(0.2590019, abs=1e-6)


def test_centres_are_of_one_image():
    both = [x.transpose(0, 1).reshape(1, 3, 4, 8) for x in (S, T)]
    labels = Y.reshape(1, 4, 8)
    assert float(intra_class_variation(*both, labels, K)) == pytest.approx(0.2801370, abs=1e-6)
    halves = [intra_class_variation(S[n, None], T[n, None], Y[n, None], K) for n in range(2)]
    assert float(sum(halves) / 2) == pytest.approx(0.2714549, abs=1e-6)


def test_two_pixels_of_one_class():
    s = torch.eye(2).view(1, 2, 1, 2)
    t = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    labels = torch.zeros(1, 1, 2, dtype=torch.long)
    assert class_similarity(s, labels, 1).flatten().tolist() == pytest.approx([0.7071068] * 2)
    assert float(intra_class_variation(s, t, labels, 1)) == pytest.approx(0.0857864, rel=1e-5)


def test_zero_cases():
    assert intra_class_variation(S, S, Y, K) == 0
    s = S.clone().requires_grad_()
    for valid_only in (False, True):
        loss = intra_class_variation(s, T, torch.full_like(Y, 255), K, valid_only)
        assert float(loss.detach()) == 0
        assert (torch.autograd.grad(loss, s)[0] == 0).all()
    alone = torch.full((2, 4, 4), 255)
    alone[:, 0, 0], alone[:, 1, 2], alone[:, 3, 1] = 0, 1, 2
    assert float(intra_class_variation(S, T, alone, K)) == pytest.approx(0, abs=1e-12)


def test_invariances():
    wanted = float(intra_class_variation(S, T, Y, K))
    image = torch.tensor([0.5, 3.0]).double().view(2, 1, 1, 1)
    rotation = torch.linalg.qr(S.flatten()[:9].view(3, 3) + torch.eye(3)).Q
    assert float(intra_class_variation(S * image, T, Y, K)) == pytest.approx(wanted)
    rotated = torch.einsum('kc,nchw->nkhw', rotation, S)
    assert float(intra_class_variation(rotated, T, Y, K)) == pytest.approx(wanted)
    pixel = torch.linspace(0.5, 2, 32).double().view(2, 1, 4, 4)
    assert float(intra_class_variation(S * pixel, T, Y, K)) != pytest.approx(wanted)


@pytest.mark.parametrize('value', [0.0, 1.0, 1e4])
def test_constant_maps_are_finite(value):
    s = torch.full((2, 3, 4, 4), value, requires_grad=True)
    loss = intra_class_variation(s, T.float(), Y, K)
    loss.backward()
    assert loss.isfinite() and s.grad.isfinite().all()


def test_objective():
    student, teacher = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(IFVD(), student, teacher)
    assert float(str(objective.weight)) == 200
    labels = torch.randint(0, 3, (2, 32, 48))
    labels[0] = 255
    losses = [
        prepare(IFVD(mask_ignore=masked), student, teacher)(
            make_step(objective, student, teacher, labels=labels)
        )['loss']
        for masked in (False, True)
    ]
    student.eval()
    trace = make_step(objective, student, teacher, labels=labels)
    s, t = objective.maps(trace)[0]
    small = F.interpolate(labels[:, None].float(), s.shape[2:], mode='nearest')[:, 0].long()
    wanted = (slow_similarity(s, small) - slow_similarity(t, small)).square().mean()
    assert float(objective(trace)['loss']) == pytest.approx(float(wanted), rel=1e-4)
    losses[0].backward()
    assert student.backbone.conv.weight.grad.abs().sum() > 0
    assert float(losses[1]) == pytest.approx(2 * float(losses[0]), rel=1e-5)
    assert len(objective.views(trace)) == 2


def test_zero_at_equality():
    student = ToySegmentor().eval()
    twin = copy.deepcopy(student)
    objective = prepare(IFVD(), student, twin)
    assert float(objective(make_step(objective, student, twin))['loss']) == 0


def test_labels_out_of_range_stop_the_first_step_only():
    student, teacher = ToySegmentor(), ToySegmentor()
    objective = prepare(IFVD(), student, teacher)
    wild = torch.full((2, 32, 48), 7)
    with pytest.raises(ValueError, match='labels reach from 7 to 7, but the student has 3'):
        objective(make_step(objective, student, teacher, labels=wild))
    objective(make_step(objective, student, teacher))
    assert float(objective(make_step(objective, student, teacher, labels=wild))['loss']) == 0
    own = prepare(IFVD(ignore_index=7), student, teacher)
    assert float(own(make_step(own, student, teacher, labels=wild))['loss']) == 0


def test_bad_input():
    student, teacher = ToySegmentor(), ToySegmentor()
    objective = prepare(IFVD(), student, teacher)
    trace = make_step(objective, student, teacher)
    for sample in trace.samples:
        del sample.gt_sem_seg
    with pytest.raises(ValueError, match='without gt_sem_seg'):
        objective(trace)
    with pytest.raises(ValueError, match='without a decode_head'):
        IFVD(student='backbone').bind(nn.Module(), teacher)
    with pytest.raises(ValueError, match='has stride 16 and the teacher.* 8; tap maps'):
        prepare(IFVD(), ToySegmentor(stride=16), teacher)


def test_one_sigmoid_output_has_two_labels():
    student = ToySegmentor(num_classes=2, out_channels=1)
    assert prepare(IFVD(), student, student).classes == 2


def test_peak_memory_at_crops_of_512_x_1024():
    labels = crop_labels()[:, ::8, ::8]
    check_memory(lambda s, t: intra_class_variation(s, t, labels, 150), 2, 32)
