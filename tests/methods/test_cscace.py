"""CSCACE against worked numbers, the literal shifts, and its invariances."""

import pytest
import torch
from mmseg.models.losses import CrossEntropyLoss
from segmentation_toys import ToySegmentor, check_memory, make_step, prepare, probe_tensors
from torch.nn import functional as F

from mmkd.analysis.benchmark import peak_bytes
from mmkd.functional.pooling import pool_nodes
from mmkd.methods.cscace import CSCACE, MOST_SIMILARITIES, correlation_distance, similarity

S, T, Y = probe_tensors()
KEEP = Y != 255
ROWS = [x.permute(0, 2, 3, 1)[KEEP] for x in (S, T)]
LABELS = Y[KEEP]


def test_similarity_is_what_the_circular_shifts_come_to():
    flat = S.flatten(2)
    shifted = torch.cat([flat * flat.roll(k, 1) for k in range(3)], 1)
    torch.testing.assert_close(similarity(S), shifted.mT @ shifted)
    pixels = torch.tensor([[1.0, 3.0], [2.0, 4.0]]).view(1, 2, 1, 2)
    assert similarity(pixels)[0].tolist() == [[25, 121], [121, 625]]


@pytest.mark.parametrize(
    ('normalize', 'wanted'), [('frobenius', 1.1433622), ('row', 0.0598729), ('none', 1.1519931)]
)
def test_probe(normalize, wanted):
    assert float(correlation_distance(S, T, normalize)) == pytest.approx(wanted, abs=1e-6)
    assert float(correlation_distance(S, S, normalize)) < 1e-20
    assert float(correlation_distance(S, -S, normalize)) < 1e-20
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turned = torch.einsum('dc,nchw->ndhw', rotation, S)
    assert float(correlation_distance(turned, T, normalize)) == pytest.approx(wanted, abs=1e-6)
    order = torch.randperm(16)
    mixed = [x.flatten(2)[..., order].view_as(x) for x in (S, T)]
    assert float(correlation_distance(*mixed, normalize)) == pytest.approx(wanted, abs=1e-6)


def test_scale_matters_to_none_only():
    for normalize in ('frobenius', 'row'):
        assert float(correlation_distance(3 * S, T, normalize)) == (
            pytest.approx(float(correlation_distance(S, T, normalize)), rel=1e-6)
        )
    assert float(correlation_distance(3 * S, T, 'none')) > 10
    two = torch.eye(2).view(1, 2, 1, 2), torch.tensor([[1.0, 1], [0, 0]]).view(1, 2, 1, 2)
    assert float(correlation_distance(*two)) == pytest.approx(0.5857864, abs=1e-6)


def test_a_step_and_its_terms():
    models = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(CSCACE(), *models)
    trace = make_step(objective, *models)
    found = objective(trace)
    assert set(found) == {'loss_csc', 'loss_ace'}
    for option, left in (('csc', 'loss_ace'), ('ace', 'loss_csc')):
        alone = prepare(CSCACE(factors={option: 0.0}), *models)(trace)
        assert set(alone) == {left} and float(alone[left].detach()) == float(found[left].detach())
    pooled = prepare(CSCACE(pool='avg', pool_size=2), *models)(trace)
    assert float(pooled['loss_csc'].detach()) != float(found['loss_csc'].detach())
    warm = prepare(CSCACE(tau=9.0), *models)(trace)
    assert float(warm['loss_ace'].detach()) != float(found['loss_ace'].detach())


def test_class_weights_of_the_students_own_loss():
    models = ToySegmentor(4), ToySegmentor(6)
    models[0].decode_head.loss_decode = CrossEntropyLoss(class_weight=[1.0, 0.0, 3.0])
    labels = torch.randint(0, 3, (2, 32, 48), generator=torch.Generator().manual_seed(1))
    labels[0, :9] = 255
    objective = prepare(CSCACE(policy='fixed', fixed=0.0, factors=dict(csc=0.0)), *models)
    trace = make_step(objective, *models, labels=labels)
    logits = trace.student['decode_head.conv_seg'][0]
    logits = F.interpolate(logits, labels.shape[1:], mode='bilinear')
    weight = torch.tensor([1.0, 0.0, 3.0])
    wanted = F.cross_entropy(logits, labels, weight, ignore_index=255)
    torch.testing.assert_close(objective(trace)['loss_ace'], wanted)
    found = models[0].decode_head.loss_decode(logits, labels, ignore_index=255)
    assert float(found.detach()) > 0 and not objective.state_dict()


def test_all_labels_ignored():
    models = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(CSCACE(), *models)
    trace = make_step(objective, *models, labels=torch.full((2, 32, 48), 255))
    found = objective(trace)['loss_ace']
    assert float(found.detach()) == 0 and found.requires_grad


def test_what_is_refused(monkeypatch):
    with pytest.raises(ValueError, match='factors of all terms'):
        CSCACE(factors=dict(csc=0, ace=0))
    with pytest.raises(ValueError, match='the share fixed must be'):
        CSCACE(fixed=1.5)
    with pytest.raises(ValueError, match='3 classes and the teacher 4'):
        CSCACE().bind(ToySegmentor(num_classes=3), ToySegmentor(num_classes=4))
    with pytest.raises(ValueError, match='two taps of the teacher, .* found backbone'):
        CSCACE(teacher='backbone').bind(ToySegmentor(), ToySegmentor())
    monkeypatch.setattr('mmkd.methods.cscace.MOST_SIMILARITIES', 2 * 10**2)
    models = ToySegmentor(4), ToySegmentor(6)
    objective = prepare(CSCACE(), *models)
    with pytest.raises(ValueError, match="2 maps of 24 places.*pool='avg', pool_size=2"):
        objective(make_step(objective, *models))
    pooled = prepare(CSCACE(pool='avg', pool_size=2), *models)
    pooled(make_step(pooled, *models))


def pooled_correlation(student, teacher):
    pair = [pool_nodes(x, 'avg', 2) for x in (student, teacher)]
    assert len(student) * pair[0][0, 0].numel() ** 2 <= MOST_SIMILARITIES
    return correlation_distance(*pair)


def test_peak_memory_at_crops_of_512_x_1024():
    check_memory(pooled_correlation, 2, 32)


def test_the_largest_batch_it_takes_needs_less_than_1_gb():
    """Measured at a 16th of it."""
    side = int((MOST_SIMILARITIES / 16 / 2) ** 0.25)
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 4, side, side, generator=generator) for _ in range(2))
    student.requires_grad_()
    for normalize in ('frobenius', 'row', 'none'):
        step = lambda n=normalize: correlation_distance(student, teacher, n).backward()  # noqa: E731
        assert 16 * peak_bytes(step) < 1e9
