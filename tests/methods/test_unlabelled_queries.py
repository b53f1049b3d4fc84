"""Methods that compare the queries of DETRs learn from images without labels."""

import copy

import pytest
import torch
from query_toys import distiller, losses, network, steady

from mmkd.datasets.unlabelled import DropLabels
from mmkd.methods.clock_distill import CLoCKDistill
from mmkd.methods.detr_distill import DETRDistill
from mmkd.methods.judged_queries import JudgedQueries
from mmkd.methods.kd_detr import KDDETR
from mmkd.methods.matched_detections import MatchedDetections
from mmkd.teacher import build_model
from mmkd.testing import detection_batch, tiny_faster_rcnn, tiny_retinanet
from mmkd.unlabelled import check_listeners, listens_without_labels

MATCHED = dict(features=0, prior=0)
KINDS = dict(
    kd_detr=lambda **more: KDDETR(points=0, **more),
    matched=lambda: DETRDistill(factors=MATCHED),
    detections=lambda: MatchedDetections(count=5),
    judged=lambda: JudgedQueries(queries=4),
)


def teacher_of(kind, name):
    torch.manual_seed(1)
    if kind in ('kd_detr', 'matched'):
        return network(name, 8, 1)
    model = build_model((tiny_retinanet if kind == 'detections' else tiny_faster_rcnn)(8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def model_of(kind, name, options=(), **more):
    objective = KINDS[kind](**dict(options))
    student = without_dropout(network(name))
    return steady(distiller(student, teacher_of(kind, name), objective, **more))


def of_images(data, rows):
    return data[0][rows], [copy.deepcopy(data[1][i]) for i in rows]


def without_labels(samples, bare=False):
    for sample in samples:
        DropLabels().transform(dict(data_samples=sample))
        if bare:
            del sample.gt_instances
    return samples


CASES = [
    *(('kd_detr', name) for name in ('detr', 'conditional', 'dab', 'deformable', 'two_stage')),
    *(
        (kind, name)
        for kind in ('matched', 'detections', 'judged')
        for name in ('detr', 'deformable')
    ),
]


@pytest.mark.parametrize(('kind', 'name'), CASES)
def test_losses_are_means_over_all_images(kind, name):
    model, data = model_of(kind, name), detection_batch(3, (64, 96), 2, 0)
    inputs, samples = of_images(data, [0, 1, 2])
    whole = losses(model, (inputs, [samples[0], *without_labels(samples[1:], bare=True)]))
    alone, others = (losses(model, of_images(data, rows)) for rows in ([0], [1, 2]))
    assert set(whole) == set(alone)
    for key, value in whole.items():
        wanted = (alone[key] + 2 * others[key]) / 3
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
        assert abs(float((value - alone[key]).detach())) > 1e-4
    sum(whole.values()).backward()
    assert any(p.grad is not None and p.grad.any() for p in model.student.decoder.parameters())


def test_sums_over_images_are_added():
    """The classes as KD-DETR's code has them grow with the batch, boxes do not."""
    model = model_of('kd_detr', 'dab', dict(cls_norm='code'))
    data = detection_batch(3, (64, 96), 2, 0)
    inputs, samples = of_images(data, [0, 1, 2])
    whole = losses(model, (inputs, [samples[0], *without_labels(samples[1:])]))
    alone, others = (losses(model, of_images(data, rows)) for rows in ([0], [1, 2]))
    key = 'loss_specific_classes'
    torch.testing.assert_close(whole[key], alone[key] + others[key], rtol=1e-4, atol=1e-5)
    key = 'loss_specific_boxes'
    wanted = (alone[key] + 2 * others[key]) / 3
    torch.testing.assert_close(whole[key], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('kind', 'name'), CASES)
def test_images_without_any_label_and_no_own_losses(kind, name):
    """Decoder and head train, too, although KDDETR runs them again, and taps the memory."""
    model = model_of(kind, name, task_weight=None)
    inputs, samples = detection_batch(2, (64, 96), 2, 0)
    found = losses(model, (inputs, without_labels(samples, bare=True)))
    assert found and all(x.isfinite() and float(x.detach()) > 0 for x in found.values())
    sum(found.values()).backward()
    for part in (model.student.encoder, model.student.decoder, model.student.bbox_head):
        felt = [p.grad is not None and bool(p.grad.any()) for p in part.parameters()]
        assert any(felt) and all(p.requires_grad for p in model.student.decoder.parameters())


def test_a_decoder_that_is_asked_about_objects_trains_without_own_losses():
    student = network('dab')
    distiller(student, network('dab', 8, 1), CLoCKDistill(), task_weight=None)
    assert all(p.requires_grad for p in student.decoder.parameters())


@pytest.mark.parametrize('name', ['dino', 'ddq'])
@pytest.mark.parametrize('kind', KINDS)
def test_denoising_needs_boxes(kind, name):
    objective = model_of(kind, name).objectives['it']
    assert not listens_without_labels(objective)
    said = f'it: {type(network(name)).__name__} makes denoising queries of boxes while it trains'
    with pytest.raises(ValueError, match=said):
        check_listeners(dict(it=objective), no_labels(), tasks=False)


def no_labels():
    return type('Data', (), dict(no_labels=True))()


@pytest.mark.parametrize('options', [{}, dict(factors=MATCHED, negatives='box')])
def test_terms_that_read_objects_need_labels(options):
    student, teacher = network('dab'), network('dab', 8, 1)
    objective = distiller(student, teacher, DETRDistill(**options)).objectives['it']
    assert not listens_without_labels(objective)
    with pytest.raises(ValueError, match="set factors={'prior': 0, 'features': 0} and negatives="):
        check_listeners(dict(it=objective), no_labels(), tasks=False)
