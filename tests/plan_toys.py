"""A Distiller of two networks with one objective, and one step of it."""

import torch

from mmkd.distiller import Distiller
from mmkd.testing import classification_batch


def distil(network, source, method='CWD', **options):
    torch.manual_seed(0)
    objectives = dict(x=dict(type=f'mmkd.{method}', **options))
    return Distiller(network, objectives, dict(config=source, checkpoint='random'))


def step(distiller, batch=None):
    distiller.train()
    return distiller.loss(*(batch or classification_batch()))
