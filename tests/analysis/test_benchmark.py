"""The benchmark of a step: what is timed against what, and what is refused."""

import pytest
from mmengine.config import Config

from mmkd.analysis import benchmark
from mmkd.analysis.benchmark import TEACHERS, Cost, benchmark_step, measure, peak_bytes, report
from mmkd.commands.benchmark import TEACHERS as CHOICES
from mmkd.testing import tiny_classifier, tiny_faster_rcnn, tiny_pspnet, tiny_retinanet


def config(objective, student=8, teacher=8):
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='mmkd.Distiller',
                student=tiny_pspnet(student),
                teacher=dict(config=dict(model=tiny_pspnet(teacher)), checkpoint='random'),
                objectives=dict(it=dict(type=objective)),
            ),
        )
    )


def test_one_floor_for_each_route_and_a_row_for_each_config():
    configs = {name: config(f'mmkd.{name}') for name in ('CWD', 'SKDPixel', 'AT')}
    # Where weights come from does not matter.
    configs['AT'].model.student.backbone.init_cfg = dict(type='Pretrained', checkpoint='x.pth')
    costs = benchmark_step(configs, (64, 64), rounds=1)
    floors = [name for name in costs if name.startswith('floor')]
    assert set(costs) == {'plain', *floors, *configs}
    assert all(costs[name].ratio == 1 for name in floors)
    assert all(cost.seconds > 0 and cost.peak > 0 for cost in costs.values())
    assert costs['CWD'].peak >= costs['plain'].peak


def test_a_row_for_each_kind_of_teacher_and_one_floor():
    configs = dict(CWD=config('mmkd.CWD'))
    costs = benchmark_step(configs, (64, 64), rounds=1, teachers=('plain', 'fast'), amp=True)
    assert [*costs] == ['plain', 'floor (tensor)', 'CWD', 'CWD, teacher fast']
    assert configs['CWD'].model.teacher.get('fast') is None  # the caller's config is left alone


def detection(**objective):
    found = config('mmkd.GID')
    found.default_scope = 'mmdet'
    found.model.student = tiny_faster_rcnn(8)
    found.model.teacher.config = dict(model=tiny_faster_rcnn(8))
    found.model.objectives['it'] = objective
    return found


def test_a_floor_has_the_heads_that_an_objective_asks():
    configs = dict(
        features=detection(type='mmkd.CWD', student='neck'),
        rpn=detection(type='mmkd.GID', min_side=1),
        both=detection(type='mmkd.Chen2017', additive=True),
    )
    costs = benchmark_step(configs, (64, 64), rounds=1, teachers=('plain', 'fast'))
    floors = [name for name in costs if name.startswith('floor')]
    assert floors == [
        'floor (extract_feat)',
        'floor (extract_feat, rpn_head)',
        'floor (extract_feat, roi_head, rpn_head)',
    ]


def test_heads_that_a_loss_trains_through_are_no_part_of_the_floor():
    found = detection(type='mmkd.CrossKD')
    found.model.student = tiny_retinanet(8)
    found.model.teacher.config = dict(model=tiny_retinanet(8))
    costs = benchmark_step(dict(CrossKD=found), (64, 64), rounds=1)
    assert [*costs][1:2] == ['floor (tensor)']


def test_the_command_offers_every_kind():
    assert [*TEACHERS] == [*CHOICES]


def test_ratios_are_taken_to_the_named_floor_within_a_round(monkeypatch):
    clock = iter([(4.0, 2.0), (8.0, 2.0), (16.0, 8.0), (6.0, 3.0), (9.0, 6.0), (3.0, 3.0)])
    monkeypatch.setattr(benchmark, '_clock', lambda step: next(clock))
    # The second round begins with the second step.
    costs = measure(dict(floor=list, short=list, long=list), 2, dict(short='floor', long='floor'))
    assert costs['floor'] == Cost(3.5, 1.0, (1.0, 1.0), 1.0, 1.0, 0, 0.0)
    short, long = costs['short'], costs['long']
    assert (short.seconds, short.ratio, short.quartiles) == (7.0, 2.0, (2.0, 2.0))
    assert (short.fastest, short.processor) == (2.0, 1.0)
    assert (long.seconds, long.ratio, long.quartiles) == (12.5, 3.5, (3.0, 4.0))
    assert (long.fastest, long.processor) == (3.0, 3.0)


def test_classifiers_get_labels_and_numbers():
    configs = {}
    for name, options in dict(KD={}, CRD=dict(size=8, negatives=4), CSKD={}).items():
        configs[name] = Config(
            dict(
                model=dict(
                    type='mmkd.Distiller',
                    student=tiny_classifier(4),
                    teacher=dict(config=dict(model=tiny_classifier(8)), checkpoint='random'),
                    objectives=dict(it=dict(type=f'mmkd.{name}', **options)),
                )
            )
        )
    costs = benchmark_step(configs, (16, 16), batch=8, rounds=1)
    assert all(costs[name].peak >= costs['plain'].peak for name in ('KD', 'CRD'))
    assert costs['CSKD'].peak < costs['plain'].peak  # half of the batch has no gradient: partners


def test_peak_of_a_step_counts_what_is_held_at_one_time():
    import torch

    def step():
        first = torch.ones(1000, 1000)
        del first
        torch.ones(500, 1000)

    assert peak_bytes(step) == pytest.approx(4e6, rel=0.01)


def test_what_is_refused():
    with pytest.raises(ValueError, match='distillation config'):
        benchmark_step({'plain': Config(dict(model=tiny_pspnet(8)))})
    with pytest.raises(ValueError, match='one student and one teacher, but a and b differ'):
        benchmark_step({'a': config('mmkd.CWD'), 'b': config('mmkd.CWD', student=4)})


def test_report():
    costs = dict(floor=Cost(2.0, 1.0, (1.0, 1.0), 1.0, 1.5, 2**20, 1.0))
    assert (
        report(costs).splitlines()[-1]
        == '| floor | 2.000 | 1.000 (1.000 to 1.000) | 1.000 | 1.500 | 1 | 1.000 |'
    )


def test_a_warm_up_is_over():
    """At weight 0 nothing of an objective runs, not even its teacher."""
    rests = config('mmkd.MGD')
    rests.model.objectives['it'].weight = dict(value=1.0, start=400)
    costs = benchmark_step({'rests': rests, 'works': config('mmkd.MGD')}, (64, 64), rounds=1)
    assert costs['rests'].peak == pytest.approx(costs['works'].peak, rel=0.05)
    assert costs['rests'].peak > 1.1 * costs['plain'].peak
