"""LayerSelf: the sheet's numbers, and real DETRs with softmax, sigmoid and denoising queries."""

import functools

import pytest
import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.config import Config
from torch import nn
from torch.nn import functional as F

from mmkd.config import load_config
from mmkd.distiller import Distiller
from mmkd.methods.layer_self import LayerSelf, class_distance, weighted_mean
from mmkd.teacher import build_model
from mmkd.testing import (
    detection_batch,
    make_trace,
    merged,
    shrink,
    tiny_detr,
    tiny_retinanet,
)

T, S = (torch.tensor([p], dtype=torch.float64).logit() for p in ([0.8, 0.1, 0.3], [0.5, 0.2, 0.3]))
STOCK = dict(
    dino='dino/dino-4scale_r50_8xb2-12e_coco.py',
    ddq='ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py',
    deformable='deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
)


def network(kind='detr', **changes):
    torch.manual_seed(0)
    if kind == 'detr':
        return build_model(tiny_detr(4, **changes))
    config = shrink(load_config(f'mmdet::{STOCK[kind]}').model.to_dict())
    config = merged(
        config, dict(num_queries=6, encoder=dict(num_layers=1), decoder=dict(num_layers=3))
    )
    config['bbox_head']['embed_dims'] = 32
    if 'dn_cfg' in config:
        config['dn_cfg']['group_cfg']['num_dn_queries'] = 4
    config = merged(config, changes)
    model = build_model(Config(dict(model=config, default_scope='mmdet')))
    model.init_weights()  # before that, embeddings of levels are whatever lies in memory
    with torch.no_grad():  # layers begin with equal boxes
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * (parameter.abs().mean() + 0.1))
    return model


def distiller(student, **options):
    return Distiller(student, dict(it=LayerSelf(**options)), preflight=False)


def batch():
    return detection_batch(2, (64, 96), 2)


def test_worked_numbers():
    apart, sure = class_distance(S, T)
    assert float(apart) == pytest.approx(0.229435, abs=1e-6)
    assert float(apart * sure) == pytest.approx(0.183548, abs=1e-6)
    assert float(weighted_mean(apart[None], sure)) == pytest.approx(0.229435, abs=1e-6)


def test_sums_over_layers_and_weighs_queries():
    values = torch.tensor([[[1.0, 3]], [[5, 7]]])  # two layers, one image, two queries
    assert float(weighted_mean(values, torch.tensor([[0.75, 0.25]]))) == 1.5 + 5.5
    assert float(weighted_mean(values, torch.zeros(1, 2))) == 0


def test_background_does_not_count_as_sure():
    z = torch.tensor([[1.0, 0, 9], [9, 0, 1]])
    apart, sure = class_distance(0 * z, z, sigmoid=False)
    p = z.softmax(1)
    assert sure.tolist() == pytest.approx(p[:, :2].amax(1).tolist())
    assert apart.tolist() == pytest.approx((p * (3 * p).log()).sum(1).tolist(), rel=1e-5)


def hand_made(scores, boxes, **options):
    objective = LayerSelf(**options)
    objective.sigmoid = True
    model = nn.Module()
    model.num_queries = scores.shape[2]
    seen = {'bbox_head.forward()': [scores, boxes]}
    return objective(make_trace(seen, inputs=torch.zeros(1, 3, 8, 8), student_model=model))


def test_the_sheets_number():  # ST-1
    last = torch.tensor([[2.0, 0, -1], [-1, -2, 0]])
    apart, sure = class_distance(torch.zeros(1, 2, 3), last)
    assert apart[0].tolist() == pytest.approx([0.4387574, 0.4387574], rel=1e-6)
    assert float(weighted_mean(apart, sure)) == pytest.approx(0.4387574, rel=1e-6)
    assert LayerSelf().weight(0.5) == 0.25


def test_terms_of_the_sheet():
    """Classes, 5 times the mean difference of boxes and twice 1 - GIoU."""
    scores = torch.stack((torch.zeros(1, 1, 3), torch.full((1, 1, 3), 2.0)))
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.5, 0.5, 0.4, 0.4]])[:, None, None]
    found = {key: float(value) for key, value in hand_made(scores, boxes).items()}
    assert found['loss_boxes'] == pytest.approx(5 * 0.05)
    assert found['loss_giou'] == pytest.approx(2 * 0.5)


def test_equal_layers_have_nothing_to_learn():
    scores, boxes = torch.randn(1, 2, 5, 3), torch.rand(1, 2, 5, 4)
    found = hand_made(scores.expand(4, -1, -1, -1), boxes.expand(4, -1, -1, -1))
    assert [float(value) for value in found.values()] == pytest.approx([0, 0, 0], abs=1e-6)


def test_factors():
    scores, boxes = torch.randn(3, 2, 5, 3), torch.rand(3, 2, 5, 4)
    once = hand_made(scores, boxes)
    other = hand_made(scores, boxes, factors=dict(classes=0, boxes=10))
    assert float(other['loss_classes']) == 0
    assert float(other['loss_boxes']) == pytest.approx(2 * float(once['loss_boxes']))
    with pytest.raises(ValueError, match='LayerSelf: factors'):
        LayerSelf(factors=3)


@pytest.mark.parametrize('kind', ['detr', 'deformable', 'dino', 'ddq'])
def test_a_step_is_the_equation_written_out(kind):
    """What a head gives behind its denoising queries, and in front of DDQ's dense ones."""
    student = network(kind)
    model = distiller(student)
    shown = {}
    hooks = [student.bbox_head.register_forward_hook(lambda m, a, out: shown.update(out=out))]
    loss = student.bbox_head.loss

    @functools.wraps(loss)
    def listen(*args, **kwargs):
        shown.update(kwargs)
        return loss(*args, **kwargs)

    student.bbox_head.loss = listen
    torch.manual_seed(0)
    found = model.loss(*batch())
    del student.bbox_head.loss
    hooks[0].remove()
    meta = shown.get('dn_meta') or {}
    first, dense = meta.get('num_denoising_queries', 0), meta.get('num_dense_queries', 0)
    scores, boxes = (x.detach().double() for x in shown['out'])
    end = scores.shape[2] - dense
    assert end - first == 6 and bool(first) == (kind in ('dino', 'ddq'))
    assert bool(dense) == (kind == 'ddq')
    classes = lengths = overlap = total = 0.0
    for n in range(2):
        for q in range(first, end):
            if kind == 'detr':
                p = scores[-1, n, q].softmax(-1)
                weight = float(p[:-1].max())
            else:
                p = scores[-1, n, q].sigmoid()
                weight = float(p.max())
            total += weight
            for layer in range(len(scores) - 1):
                z = scores[layer, n, q]
                if kind == 'detr':
                    apart = (p * (p.log() - z.log_softmax(-1))).sum()
                else:
                    apart = F.binary_cross_entropy_with_logits(z, p, reduction='sum')
                    apart -= F.binary_cross_entropy(p, p, reduction='sum')
                classes += weight * float(apart)
                lengths += weight * float((boxes[layer, n, q] - boxes[-1, n, q]).abs().mean())
                pair = (bbox_cxcywh_to_xyxy(boxes[i, n, q])[None] for i in (layer, -1))
                overlap += weight * float(1 - bbox_overlaps(*pair, mode='giou', eps=1e-12))
    wanted = dict(classes=classes, boxes=5 * lengths, giou=2 * overlap)
    for term, value in wanted.items():
        got = float(found[f'kd.it.loss_{term}'].detach())
        assert got == pytest.approx(0.25 * value / total, rel=1e-3)


@pytest.mark.parametrize('kind', ['detr', 'dino'])
def test_the_last_layer_learns_nothing(kind):
    model = distiller(network(kind))
    found = model.loss(*batch())
    (found['kd.it.loss_classes'] + found['kd.it.loss_boxes']).backward()
    felt = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    last = len(model.student.decoder.layers) - 1
    assert any(name.startswith('decoder.layers.0.') for name in felt)
    assert not any(name.startswith(f'decoder.layers.{last}.') for name in felt)
    if kind == 'dino':  # a head for each layer
        assert not any(f'{part}.{last}.' in n for n in felt for part in ('cls_branches',))


def test_with_weight_zero_the_student_learns_as_alone():
    alone = network()
    torch.manual_seed(0)
    wanted = alone(*batch(), mode='loss')
    model = distiller(network(), weight=0)
    torch.manual_seed(0)
    found = model.loss(*batch())
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


class Spoken(nn.Module):
    """A head that scores the words of a text, as Grounding DINO's."""

    def forward(self, hidden_states, references, memory_text, text_token_mask):
        raise NotImplementedError

    def loss(self, hidden_states, dn_meta):
        raise NotImplementedError


def spoken():
    student = network()
    student.bbox_head = Spoken()
    return student


@pytest.mark.parametrize(
    ('student', 'message'),
    [
        (lambda: build_model(tiny_retinanet(4)), 'the student is RetinaNet with RetinaHead'),
        (lambda: network(decoder=dict(num_layers=1)), 'the decoder of DETR gives one'),
        (lambda: network(decoder=dict(return_intermediate=False)), 'return_intermediate=True'),
        (spoken, 'Spoken scores words of a text'),
    ],
)
def test_refused(student, message):
    with pytest.raises(ValueError, match=message):
        distiller(student())
