"""Configs of query detectors, made narrow and shallow: planned, and stepped once with each."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from mmkd.config import load_config
from mmkd.registry import MODELS
from mmkd.testing import detection_batch, merged, shrink

FOLDER = Path(__file__).parents[2] / 'configs'
METHODS = (
    *('kd_detr', 'detr_distill', 'clock_distill'),
    *('judged_queries', 'matched_detections', 'judged_boxes'),
)
CONFIGS = sorted(path for name in METHODS for path in FOLDER.glob(f'{name}_*.py'))


def shallow(model):
    """With one layer of the encoder, two of the decoder and ten queries, if it has any."""
    model = shrink(model)
    if 'decoder' not in model:
        return model
    if 'dn_cfg' in model:
        model['dn_cfg']['group_cfg']['num_dn_queries'] = 4
    changes = dict(num_queries=10, encoder=dict(num_layers=1), decoder=dict(num_layers=2))
    return merged(model, changes)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_step(path):
    config = load_config(str(path))
    init_default_scope(config.default_scope)
    model = config.model
    model.student = shallow(model.student)
    teacher = load_config(model.teacher.config).model
    if 'Swin' in teacher.backbone.type:
        teacher.backbone.update(depths=[1, 1, 1, 1])
    model.teacher.update(config=shallow(teacher), checkpoint='random')
    torch.manual_seed(0)
    distiller = MODELS.build(model).train()
    distiller.init_weights()
    with torch.no_grad():  # heads of a DETR begin with boxes and classes that are all alike
        for parameter in distiller.teachers['teacher'].model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    losses = distiller(*detection_batch(2, (64, 96)), mode='loss')
    for name in model.objectives:
        own = {k: v for k, v in losses.items() if k.startswith(f'kd.{name}.loss')}
        assert own and all(v.isfinite() for v in own.values())
        assert sum(float(v.detach()) for v in own.values()) > 0
    distiller.parse_losses(losses)[0].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in distiller.parameters())
