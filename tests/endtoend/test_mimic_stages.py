"""Two-stage mimic: the student of the first run is where the second starts."""

import torch
from recipes import MODELS, recipe, run

from mmkd.engine.launch import build_runner, prepare
from mmkd.teacher import load_strictly


def stage(method, data, folder, load_from=None, **changes):
    """Two iterations under one objective, with a teacher that is twice as wide."""
    model = dict(
        type='mmkd.Distiller',
        student=MODELS['frcnn'](),
        teacher=dict(config=MODELS['frcnn'](width=16), checkpoint='random'),
        objectives={method.lower(): dict(type=f'mmkd.{method}')},
        **changes,
    )
    every = {'default_hooks.checkpoint.interval': 1}
    config = recipe('frcnn', data, folder, model, iterations=2, **every)
    config.load_from = load_from
    return build_runner(prepare(config))


def test_the_second_stage_starts_from_the_first(tmp_path):
    data = tmp_path / 'data'
    # As in the paper, the first stage trains no box head.
    only_rpn = dict(loss_cls=0.0, loss_bbox=0.0)
    _, weights = run(stage('Mimic', data, tmp_path / 'one', task_weight=only_rpn))
    once = torch.load(tmp_path / 'one' / 'iter_1.pth', weights_only=False)['state_dict']
    moved = {k.split('.')[0] for k, v in weights.items() if not torch.equal(v, once[k])}
    assert moved == {'backbone', 'neck', 'rpn_head'}
    checkpoint = str(tmp_path / 'one' / 'iter_2.pth')

    runner = stage('MimicHead', data, tmp_path / 'two', load_from=checkpoint)
    runner.load_or_resume()
    loaded = runner.model.student.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in weights.items())
    _, final = run(runner)
    moved = [k for k, v in final.items() if not torch.equal(v, weights[k])]
    assert any(k.startswith('roi_head') for k in moved)
    load_strictly(runner.model.student, str(tmp_path / 'two' / 'iter_2.pth'))
