"""FT: the distance of factors against worked numbers, and one phase after the other."""

import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.methods.ft import FT, decoder, encoder, factor_distance
from mmkd.teacher import Teacher, build_model
from mmkd.testing import classification_batch, make_trace, ready, tiny_classifier

i = torch.arange(16, dtype=torch.float64)
FS, FT_ = ((i - 7) / 4).view(2, 2, 2, 2), (((5 * i) % 9 - 4) / 4).view(2, 2, 2, 2)


@pytest.mark.parametrize(
    ('variant', 'wanted'), [('code', 0.3492770), ('paper', 2.794216), ('repdistiller', 0.2178719)]
)
def test_worked_numbers(variant, wanted):
    assert float(factor_distance(FS, FT_, variant)) == pytest.approx(wanted, abs=1e-6)
    assert float(factor_distance(3 * FS, FT_, variant)) == pytest.approx(wanted, abs=1e-6)
    assert float(factor_distance(FS, FS, variant)) == 0


def test_the_way_there_and_back():
    there, back = encoder(8, 4), decoder(8, 4)
    x = torch.randn(2, 8, 5, 3)
    assert there(x).shape == (2, 4, 5, 3) and back(there(x)).shape == x.shape


def test_without_batchnorms_as_the_authors():
    kinds = [type(m).__name__ for m in encoder(2, 4, norm=False)]
    assert kinds == ['Conv2d', 'LeakyReLU'] * 3
    assert [m.out_channels for m in encoder(2, 4) if isinstance(m, torch.nn.Conv2d)] == [2, 4, 4]
    trace = make_trace({'a': FS.float()}, {'a': FT_.float()})
    for norm in (False, True):
        objective = ready(FT('a', norm=norm), trace)
        assert any(isinstance(m, torch.nn.BatchNorm2d) for m in objective.modules()) == norm


def test_the_paraphraser_learns():
    torch.manual_seed(0)
    objective = FT(teacher='a', phase='paraphraser', rate=2.0)
    trace = make_trace({'a': torch.randn(4, 3, 4, 4)}, {'a': torch.randn(4, 6, 4, 4).abs()})
    objective.student_taps = ()
    ready(objective, trace)
    optimiser = torch.optim.Adam(objective.parameters(), 1e-2)
    errors = []
    for _ in range(40):
        loss = objective.train()(trace)['loss_reconstruction']
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.6 * errors[0] and int(objective.steps) == 40


def test_one_phase_after_the_other():
    torch.manual_seed(0)
    teacher = build_model(tiny_classifier(8))
    first = Distiller(
        build_model(tiny_classifier(4)),
        dict(ft=FT(phase='paraphraser')),
        Teacher(teacher, 'random'),
        task_weight=0,
    )
    inputs, samples = classification_batch()
    assert 'kd.ft.loss_reconstruction' in first.loss(inputs, samples)
    second = Distiller(build_model(tiny_classifier(4)), dict(ft=FT()), Teacher(teacher, 'random'))
    objective = second.objectives['ft']
    with pytest.raises(ValueError, match='never trained.*chains.md'):
        objective.check_dataset(None)
    missing = second.load_state_dict(first.state_dict(), strict=False).missing_keys
    assert all('translator' in key for key in missing)
    objective.check_dataset(None)
    second.train()
    assert not objective.paraphraser.training and objective.translator.training
    assert not any(p.requires_grad for p in objective.paraphraser.parameters())
    second.loss(inputs, samples)['kd.ft.loss'].backward()
    assert second.backbone.conv1.weight.grad.any()


def test_what_is_refused():
    for options, message in (
        (dict(phase='both'), 'phase must be one of'),
        (dict(rate=0), 'rate must be a finite number above 0'),
        (dict(variant='l2'), 'variant must be one of'),
    ):
        with pytest.raises(ValueError, match=message):
            FT(**options)
    objective = FT(['a', 'b'], ['a', 'b'])
    trace = make_trace(dict(a=FS, b=FS), dict(a=FT_, b=FT_))
    with pytest.raises(ValueError, match='one map of each'):
        ready(objective, trace)
