"""Every method that says so learns from images without labels."""

import pytest
import torch
from cases import CLASSIFIERS, batch, build, method, pairs, terms, total

from mmkd.datasets.unlabelled import DropLabels
from mmkd.unlabelled import listens_without_labels


def one_family_each():
    found = {}
    for name, family in pairs():
        if method(name).needs_teacher and method(name).label_free:
            found.setdefault(name, family)
    return list(found.items())


@pytest.mark.parametrize(('name', 'family'), one_family_each())
def test_a_step(name, family):
    distiller = build(name, family)
    if not listens_without_labels(distiller.objectives['it']):
        return  # on this family it reads some
    inputs, samples = batch(family, None if family in CLASSIFIERS else 4)
    for sample in samples[2:]:
        DropLabels().transform(dict(data_samples=sample))
    loss = total(terms(distiller, (inputs, samples)))
    parameters = [p for p in distiller.student.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert loss.isfinite() and any(g is not None and bool(g.any()) for g in grads)
