"""KA: its two terms against worked numbers, the auto-encoder, and one phase after the other."""

import pytest
import torch
from segmentation_toys import ToySegmentor, check_memory, make_step, prepare, probe_tensors

from mmkd.distiller import Distiller
from mmkd.methods.ka import KA, adaptation, affinity_error
from mmkd.teacher import Teacher, build_model
from mmkd.testing import segmentation_batch, tiny_pspnet

S, T, _ = probe_tensors()


@pytest.mark.parametrize(
    ('scope', 'p', 'wanted'),
    [
        ('position', 1, 1.9483397),
        ('position', 2, 1.2498852),
        ('sample', 1, 0.1698516),
        ('sample', 2, 1.4296587),
    ],
)
def test_adaptation(scope, p, wanted):
    assert float(adaptation(S, T, p, scope=scope)) == pytest.approx(wanted, abs=1e-5)
    assert float(adaptation(S, S, p, scope=scope)) == 0
    places = torch.linspace(0.5, 2, 32, dtype=torch.float64).view(2, 1, 4, 4)
    scaled = float(adaptation(places * S, T, p, scope=scope))
    assert (scaled == pytest.approx(wanted, abs=1e-5)) == (scope == 'position')
    assert float(adaptation(3 * S, T, p, scope=scope)) == pytest.approx(wanted, abs=1e-5)


def test_two_places():
    s = torch.tensor([[3.0, 1.0], [4.0, 0.0]]).view(1, 2, 1, 2)
    t = torch.tensor([[6.0, 0.0], [8.0, 1.0]]).view(1, 2, 1, 2)
    assert float(adaptation(s, t, 1)) == pytest.approx(1.0, abs=1e-5)
    assert float(adaptation(s, t, 2)) == pytest.approx(0.7071068, abs=1e-5)
    orthogonal = torch.eye(2).view(1, 2, 1, 2)
    equal = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    assert float(affinity_error(orthogonal, equal)) == pytest.approx(1.0, abs=1e-5)
    assert float(affinity_error(orthogonal, equal, 'mse')) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize(('reduction', 'wanted'), [('row_l2', 2.5273519), ('mse', 0.4115535)])
def test_affinity(reduction, wanted):
    assert float(affinity_error(S, T, reduction)) == pytest.approx(wanted, abs=1e-4)
    matrices = [x.flatten(2) / x.flatten(2).norm(dim=1, keepdim=True) for x in (S, T)]
    matrices = [x.mT @ x for x in matrices]
    error = matrices[0] - matrices[1]
    literal = error.norm(dim=2).mean() if reduction == 'row_l2' else error.square().mean()
    assert float(affinity_error(S, T, reduction)) == pytest.approx(float(literal), rel=1e-5)
    assert float(affinity_error(S, S, reduction)) == pytest.approx(0, abs=2e-6)
    leaf = S[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: affinity_error(x, T[:1], reduction), leaf)
    scale = torch.rand(2, 1, 4, 4, dtype=torch.float64) + 0.5
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    other = torch.einsum('dc,nchw->ndhw', rotation, scale * S)
    assert float(affinity_error(other, T, reduction)) == pytest.approx(wanted, abs=1e-4)


def test_dead_places_are_finite():
    x = torch.zeros(1, 3, 2, 2, requires_grad=True)
    (
        adaptation(x, T[:1, :, :2, :2].float()) + affinity_error(x, T[:1, :, :2, :2].float())
    ).backward()
    assert x.grad.isfinite().all()


def pair(**options):
    models = ToySegmentor(4, stride=8), ToySegmentor(6, stride=8)
    objective = prepare(
        KA(student='backbone', teacher='decode_head.dropout@in[0]', **options), *models
    )
    return objective, make_step(objective, *models)


def test_the_auto_encoder_learns():
    torch.manual_seed(0)
    objective, trace = pair(phase='autoencoder', latent=8)
    optimiser = torch.optim.Adam(objective.parameters(), 1e-2)
    errors = []
    for _ in range(30):
        losses = objective.train()(trace)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        errors.append(float(losses['loss_reconstruction'].detach()))
    assert errors[-1] < 0.5 * errors[0]
    assert int(objective.steps) == 30


def test_options_of_the_second_phase():
    torch.manual_seed(0)
    objective, trace = pair()
    assert not any(p.requires_grad for p in objective.autoencoder.parameters())
    assert not objective.train().autoencoder.training and objective.adapter.training
    assert set(objective(trace)) == {'loss_adaptation', 'loss_affinity'}
    only, trace = pair(factors=dict(adaptation=0.0))
    assert set(only(trace)) == {'loss_affinity'} and not hasattr(only, 'adapter')
    only, trace = pair(factors=dict(affinity=0.0))
    assert set(only(trace)) == {'loss_adaptation'} and not hasattr(only, 'affinity_adapter')
    shared, trace = pair(share=True)
    assert set(shared(trace)) == {'loss_adaptation', 'loss_affinity'}
    assert not hasattr(shared, 'affinity_adapter')


def test_one_phase_after_the_other():
    torch.manual_seed(0)
    student, teacher = (build_model(tiny_pspnet(width)) for width in (4, 8))
    frozen = Teacher(teacher, checkpoint='random')
    first = Distiller(student, dict(ka=KA(phase='autoencoder')), frozen, task_weight=0)
    inputs, samples = segmentation_batch(2, (64, 96))
    losses = first.loss(inputs, samples)
    assert set(k for k in losses if k.startswith('kd.')) == {
        'kd.ka.loss_reconstruction',
        'kd.ka.loss_sparsity',
    }
    second = Distiller(build_model(tiny_pspnet(4)), dict(ka=KA()), Teacher(teacher, 'random'))
    with pytest.raises(ValueError, match='never trained.*chains.md'):
        second.objectives['ka'].check_dataset(None)
    missing = second.load_state_dict(first.state_dict(), strict=False).missing_keys
    assert all('adapter' in key for key in missing)
    second.objectives['ka'].check_dataset(None)
    wanted = first.objectives['ka'].autoencoder.encoder[0].weight
    assert torch.equal(second.objectives['ka'].autoencoder.encoder[0].weight, wanted)
    assert float(second.loss(inputs, samples)['kd.ka.loss_adaptation'].detach()) > 0


def test_what_is_refused():
    with pytest.raises(ValueError, match='factors of all terms'):
        KA(factors=dict(adaptation=0, affinity=0))
    with pytest.raises(ValueError, match='stride 8 and the teacher.s 16'):
        prepare(KA('backbone', 'backbone'), ToySegmentor(stride=8), ToySegmentor(stride=16))


@pytest.mark.parametrize('reduction', ['row_l2', 'mse'])
def test_peak_memory_at_crops_of_512_x_1024(reduction):
    check_memory(lambda s, t: affinity_error(s, t, reduction), 2, 32)
