"""Recipes between families of segmentors: planned, and trained two steps with narrow networks."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from mmkd.analysis.batches import random_batch
from mmkd.config import load_config
from mmkd.registry import MODELS
from mmkd.testing import shrink

FOLDER = Path(__file__).parents[2] / 'configs'
#: config, and what the teacher's logits of pixels are made of
RECIPES = {
    'cwd_segformer_mask2former_swin_b_b0_ade20k': 'decode_head.forward()@scores',
    'kd_segformer_mask2former_swin_b_b0_ade20k': 'decode_head.forward()@scores',
    'cwd_segformer_mask2former_swin_l_b0': 'decode_head.forward()@scores',
    'matched_masks_mask2former_r101_r50': 'panoptic_head.forward()@scores',
    'matched_masks_mask2former_r101_r50_panoptic': 'panoptic_head.forward()@scores',
    'matched_masks_mask2former_swins_r50': 'panoptic_head.forward()@scores',
    'matched_masks_mask2former_swins_r50_ade20k': 'decode_head.forward()@scores',
    'small/matched_masks_mask2former_r18w32_r18w8_camvid': 'decode_head.forward()@scores',
    'cwd_segnext_l_t_ade20k': 'decode_head.conv_seg',
    'cwd_upernet_swin_b_r50_ade20k': 'decode_head.conv_seg',
    'cwd_pspnet_upernet_swin_b_r50_ade20k': 'decode_head.conv_seg',
}


def narrow(model: dict) -> dict:
    """With few layers, queries and points in heads that classify masks."""
    model = shrink(model)
    head = model.get('decode_head') or model['panoptic_head']
    if 'num_queries' in head:
        head['num_queries'], head['transformer_decoder']['num_layers'] = 12, 3
        head['pixel_decoder']['encoder']['num_layers'] = 1
        (head.get('train_cfg') or model['train_cfg'])['num_points'] = 64
    if 'depths' in model['backbone']:
        model['backbone']['depths'] = [1] * 4
    return model


@pytest.mark.parametrize('name', RECIPES)
def test_two_steps(name):
    config = load_config(str(FOLDER / f'{name}.py'))
    init_default_scope(config.default_scope)
    model = config.model
    teacher = load_config(model.teacher.config).model
    if not name.startswith('small/'):
        model.student, teacher = narrow(model.student), narrow(teacher)
    model.teacher.update(config=teacher, checkpoint='random')
    torch.manual_seed(0)
    distiller = MODELS.build(model).train()
    (objective,) = distiller.objectives.values()
    assert str(objective.teacher_taps[0]) == RECIPES[name]
    optimizer = torch.optim.SGD(distiller.parameters(), 1e-3)
    batch = random_batch(distiller.student, (64, 64), 2, 3)
    for _ in range(2):
        losses = distiller(*batch, mode='loss')
        total, logged = distiller.parse_losses(losses)
        assert total.isfinite() and sum(v for k, v in logged.items() if k.startswith('kd.')) > 0
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
