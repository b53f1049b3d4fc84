"""A tiny classifier with exits, and steps of it."""

import torch

from mmkd.distiller import Distiller
from mmkd.teacher import build_model
from mmkd.testing import classification_batch, tiny_classifier

#: logits of the issue's sheet, one image of class 0: an exit and the last exit
Q1, QK = (torch.tensor([row], dtype=torch.float64) for row in ([1.0, 1, 0], [2.0, 0, 0]))
Y = torch.tensor([0])


def network(kind='resnet', seed=0, **changes):
    torch.manual_seed(seed)
    return build_model(tiny_classifier(4, kind=kind, **changes))


def distiller(objective, student=None, **more):
    torch.manual_seed(1)
    student = network() if student is None else student
    return Distiller(student, dict(it=objective), preflight=False, **more)


def batch(n=8, size=(16, 24)):
    return classification_batch(n, size)


def terms(model, data=None):
    """Losses of one step, by the name of the term."""
    inputs, samples = data or batch()
    found = model.loss(inputs, samples)
    return {key.removeprefix('kd.it.'): value for key, value in found.items()}


def at_weight_zero(objective):
    """The student learns as alone; returns the Distiller."""
    alone, data = network(), batch()
    wanted = alone(*data, mode='loss')['loss_cls']
    model = distiller(objective)
    found = terms(model, data)
    assert list(found) == ['loss_cls'] and torch.equal(found['loss_cls'], wanted)
    buffers = zip(alone.buffers(), model.student.buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in buffers)
    return model


def gradients(model, loss):
    """By parameter, where there is one that is not zero."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {n: g for n, g in zip(named, grads, strict=True) if g is not None and g.any()}


def reaches(model, loss):
    """The parts of the network that a loss trains."""
    return {'.'.join(name.split('.')[:2]) for name in gradients(model, loss)}
