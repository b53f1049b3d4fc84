"""NoisyTeacher: the noise, and the constant that it adds."""

import pytest
import torch
from logit_toys import ZS, ZT, images

from mmkd.methods.l2_logit import half_squared_error
from mmkd.methods.noisy_teacher import NoisyTeacher, perturb


def test_worked_numbers():
    noisy = perturb(ZT, torch.tensor([[0.1], [-0.2], [0.0]]))
    assert float(half_squared_error(ZS, noisy)) == pytest.approx(1.865)
    for quiet in (dict(alpha=0.0), dict(sigma=0.0)):
        assert float(images(NoisyTeacher(**quiet))['loss']) == pytest.approx(1.75)


def test_noise_has_the_share_and_the_deviation_that_were_asked_for():
    many = torch.ones(20_000, 3)
    xi = NoisyTeacher(alpha=0.3, sigma=0.7).draw(many, 5)
    assert xi.shape == (20_000, 1)
    assert float((xi != 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(xi[xi != 0].std()) == pytest.approx(0.7, abs=0.02)
    by_logit = NoisyTeacher(noise='logit', alpha=1.0).draw(many, 5)
    assert by_logit.shape == many.shape and float(by_logit.std(1).min()) > 0


def test_noise_depends_on_seed_and_iteration_only():
    objective, again = NoisyTeacher(seed=1), NoisyTeacher(seed=1)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = objective.draw(ZT, 7)
    assert torch.equal(torch.get_rng_state(), before), "the student's stream is its own"
    assert torch.equal(first, again.draw(ZT, 7))
    assert not torch.equal(objective.draw(ZT, 8), first)
    assert not torch.equal(NoisyTeacher(seed=2).draw(ZT, 7), first)


def test_expected_noise_adds_a_constant():
    alpha, sigma = 0.5, 0.6
    draws = [
        half_squared_error(ZS, perturb(ZT, NoisyTeacher(alpha=alpha, sigma=sigma).draw(ZT, i)))
        for i in range(4000)
    ]
    wanted = 1.75 + alpha * sigma**2 / 2 * ZT.square().sum(1).mean()
    assert float(torch.stack(draws).mean()) == pytest.approx(float(wanted), rel=0.05)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(alpha=1.5), 'the share alpha must be'),
        (dict(sigma=-1), 'sigma must be'),
        (dict(noise='batch'), 'noise must be one of'),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        NoisyTeacher(**options)
