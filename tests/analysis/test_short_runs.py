"""ProbeLog of a search: what is kept of them, and how long they train."""

from types import SimpleNamespace

import pytest

from mmkd.analysis.short_runs import Length, Probe, ProbeLog
from mmkd.schedule import Schedule

SETTINGS = dict(config='a.py', seed=0)


def test_probes_are_kept_and_found_again(tmp_path):
    path = tmp_path / 'new' / 'probes.json'
    probes = ProbeLog(path, SETTINGS)
    assert probes.find(0, (1, 2)) is None
    kept = Probe(0, (1, 2), 3, 0.5, 0.25)
    probes.add(kept)
    probes.add(Probe(1, (0, 0), 6, float('inf'), float('inf')))
    again = ProbeLog(path, SETTINGS)
    assert again.find(0, (1, 2)) == kept and kept.joint == 0.75
    assert again.find(1, (0, 0)).task == float('inf') and again.find(1, (1, 2)) is None
    with pytest.raises(ValueError, match='probes of another search, which differs in seed'):
        ProbeLog(path, dict(SETTINGS, seed=1))


def run_of(steps, weight=1.0, each=10):
    objectives = dict(
        guide=SimpleNamespace(
            weight=Schedule(**dict(value=weight) if isinstance(weight, float) else weight)
        )
    )
    return SimpleNamespace(
        max_iters=steps,
        iter=0,
        train_dataloader=range(each),
        train_loop=SimpleNamespace(stop_training=False),
        model=SimpleNamespace(objectives=objectives),
    )


def test_a_probe_ends_after_its_epochs():
    hook, runner = Length(2, 3, ['guide']), run_of(60)
    hook.before_train(runner)
    stops = []
    for runner.iter in range(20):
        hook.after_train_iter(runner)
        stops.append(runner.train_loop.stop_training)
    assert stops == [False] * 19 + [True]


def test_the_last_round_must_fit_into_the_run():
    with pytest.raises(ValueError, match='trains 7 epochs of 10 steps, but the whole run has 60'):
        Length(1, 7, ['guide']).before_train(run_of(60))


def test_a_weight_of_0_in_all_steps_cannot_tell_routes_apart():
    late = dict(value=1.0, start=30)
    with pytest.raises(ValueError, match="objective 'guide' is 0 in all 20 steps of a probe"):
        Length(2, 3, ['guide']).before_train(run_of(60, late))
    Length(4, 4, ['guide']).before_train(run_of(60, late))
