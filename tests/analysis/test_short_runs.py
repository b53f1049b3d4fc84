"""ProbeLog of a search: what is kept of them, and how long they train."""

from types import SimpleNamespace

import pytest
import torch

from mmkd.analysis.short_runs import Length, Probe, ProbeLog, held_out_losses
from mmkd.registry import MODELS
from mmkd.schedule import Schedule
from mmkd.testing import class_labels, pixels

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


def test_held_out_losses_of_methods_have_one_scale():
    """KD's task weight of 0.1 would make its loss a tenth of another method's."""
    batch = dict(inputs=list(pixels()), data_samples=class_labels(torch.arange(2)))
    lsr = dict(type='mmkd.LSR')

    def losses(task_weight, name):
        torch.manual_seed(0)
        model = dict(
            type='mmkd.Distiller', student=dict(type='mmkd.ToyNet'), objectives=dict(a=lsr)
        )
        model = MODELS.build(model | dict(task_weight=task_weight))
        return held_out_losses(model, [batch, batch], name, seed=0)

    whole, none = losses(1.0, None)
    assert whole > 0 and none == 0
    assert losses(0.1, None) == losses(None, None) == (whole, 0)
    task, term = losses(0.1, 'a')
    assert task == pytest.approx(whole / 10) and term > 0
