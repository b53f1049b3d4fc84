"""GradientRatio: a term's gradient is kept at a share of the task's."""

import logging

import pytest
import torch
from balance_toys import objectives, step

from mmkd.balance import GradientRatio, gradient_ratio


def bound(names=('it',), options=None, **balance):
    result = GradientRatio(**balance)
    result.bind(objectives(*names, **(options or {})))
    return result


def test_values_of_the_sheet():
    balance = bound(ratio=0.5, beta=0.9, every=50)
    wanted = (0.02, 0.020612, 0.019940)
    lengths = ((2.0, 50.0), (2.2, 40.0), (1.8, 60.0))
    for i, ((task, term), factor) in enumerate(zip(lengths, wanted, strict=True)):
        found = balance(*step({'it': [0.0, term]}, [task, 0.0], iteration=50 * i))
        assert found['it'] == pytest.approx(factor, abs=1e-6)


def test_between_measurements_the_factor_stays():
    """After the first, gaps of 1 and 2, then every third step."""
    balance = bound(ratio=1.0, every=3, beta=0.0)
    found = [
        round(1 / balance(*step({'it': [i + 1.0, 0.0]}, [1.0, 0.0], iteration=i))['it'])
        for i in range(12)
    ]
    assert found == [1, 2, 2, 4, 4, 4, 7, 7, 7, 10, 10, 10]


def test_a_term_that_begins_later_is_measured_at_once():
    late = {'it': bound(ratio=1.0)}['it']
    late.bind(objectives('it', weight=dict(value=1.0, start=10)))
    assert late(*step({'it': [2.0]}, [1.0], iteration=0)) == {}
    assert late(*step({'it': [2.0]}, [1.0], iteration=13)) == {'it': pytest.approx(0.5)}
    assert late(*step({'it': [8.0]}, [1.0], iteration=13)) == {'it': pytest.approx(0.5)}
    assert late(*step({'it': [2.0]}, [2.0], iteration=14))['it'] > 0.5


def test_a_schedule_keeps_its_shape_and_the_value_of_a_weight_cancels():
    for value in (0.1, 5.0):
        weight = dict(value=value, warmup=100)
        balance = bound(ratio=0.3, options=dict(weight=weight))
        args = step({'it': [0.0, 2.0]}, [1.0, 0.0], {'it': value * 0.25}, iteration=25)
        factor = balance(*args)['it']
        assert factor * value * 0.25 * 2.0 == pytest.approx(0.3 * 0.25)


def test_each_objective_by_name_and_the_others_are_left_alone():
    balance = bound(('a', 'b', 'c'), ratio=dict(a=0.5, B=0.25))
    vectors = dict(a=[2.0], b=[2.0], c=[2.0])
    assert balance(*step(vectors, [1.0])) == {'a': 0.25, 'b': 0.125}


def test_the_factor_is_bounded(monkeypatch):
    said = []
    monkeypatch.setattr(gradient_ratio, 'print_log', lambda text, **options: said.append(text))
    balance = bound(('strong', 'weak'), ratio=1.0, clip=(0.1, 10.0))
    assert balance(*step(dict(strong=[1e3], weak=[1e-3]), [1.0])) == {'strong': 0.1, 'weak': 10.0}
    assert len(said) == 2 and all(text.endswith(', a bound of clip') for text in said)


def test_the_task_counts_all_its_losses_and_nothing_that_is_only_logged():
    balance = bound(ratio=1.0)
    terms, task, trace, progress = step({'it': [1.0]}, [3.0])
    task['loss_box'] = [task['loss_cls'], task['loss_cls']]
    assert balance(terms, task, trace, progress)['it'] == pytest.approx(9.0)


def test_losses_that_train_the_objective_alone_do_not_count():
    balance = bound(ratio=1.0)
    balance.objectives['it'].own_losses = ('loss_critic',)
    terms, task, trace, progress = step({'it': [2.0]}, [1.0])
    terms['it']['kd.it.loss_critic'] = 100 * terms['it']['kd.it.loss']
    assert balance(terms, task, trace, progress)['it'] == pytest.approx(0.5)


def test_without_a_gradient_the_old_factor_stays_and_is_reported_once(caplog):
    balance = bound(ratio=0.5, every=1)
    assert balance(*step({'it': [0.0]}, [1.0])) == {'it': 1.0}
    assert balance(*step({'it': [2.0]}, [1.0], iteration=1)) == {'it': 0.25}
    with caplog.at_level(logging.WARNING):
        for i, bad in enumerate((0.0, float('nan'), float('inf')), start=2):
            assert balance(*step({'it': [bad]}, [1.0], iteration=i)) == {'it': 0.25}
    assert balance.silent == {'it'}


def test_without_gradients_nothing_is_measured():
    balance = bound(ratio=0.5)
    args = step({'it': [2.0]}, [1.0])
    with torch.no_grad():
        assert balance(*args) == {'it': 1.0}
    assert not balance.shares


def test_a_resumed_one_continues():
    whole, cut = bound(ratio=0.5, every=2), bound(ratio=0.5, every=2)
    values = [float(v) for v in torch.rand(7, generator=torch.Generator().manual_seed(0)) + 0.5]
    run = [whole(*step({'it': [v]}, [1.0], iteration=i)) for i, v in enumerate(values)]
    for i in range(3):
        cut(*step({'it': [values[i]]}, [1.0], iteration=i))
    again = bound(ratio=0.5, every=2)
    again.load_state_dict(cut.state_dict())
    assert [again(*step({'it': [values[i]]}, [1.0], iteration=i)) for i in range(3, 7)] == run[3:]
    assert again.state_dict() == whole.state_dict()


def test_a_place_that_the_task_or_the_term_does_not_reach():
    with pytest.raises(
        ValueError, match="own losses have no gradient at neck, where objective 'it"
    ):
        bound()(*step({'it': [1.0]}))
    terms, task, trace, progress = step({'it': [1.0]}, [1.0])
    elsewhere = dict(it={'kd.it.loss': torch.ones((), requires_grad=True) * 2})
    with pytest.raises(ValueError, match="objective 'it' has no gradient at neck"):
        bound()(elsewhere, task, trace, progress)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(ratio={}), 'names no objective'),
        (dict(ratio=0), 'ratio must be a finite number above 0'),
        (dict(ratio=dict(it=-1)), 'ratio it must be a finite number above 0'),
        (dict(ratio=dict(its=0.1)), "no objective 'its'; there are it.*Did you mean 'it'"),
        (dict(every=0), 'every must be a whole number of at least 1'),
        (dict(beta=1), 'beta must be a finite number'),
        (dict(clip=0.1), 'clip must be two numbers'),
        (dict(clip=(0, 1)), 'lower bound of clip must be a finite number above 0'),
        (dict(clip=(2, 1)), 'upper bound of clip must be a finite number of at least 2'),
        (dict(at='neck['), "Tap 'neck\\[' is not an address"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        bound(**options)


def test_what_the_plan_says():
    lines = bound(('a', 'b'), at='backbone[-1]', ratio=dict(a=0.3)).describe()
    assert 'at backbone[-1]: a 0.3' in lines[0] and '2 more backward passes' in lines[1]
    rests = bound(('a',), options=dict(weight=0))
    assert 'none' in rests.describe()[0]
