"""Batches that an objective generates in place of the data's: who may, and what is refused."""

from types import SimpleNamespace

import pytest
import torch

from mmkd.datasets import NoImages
from mmkd.distiller import Distiller
from mmkd.generated import check_images, check_makers, generate
from mmkd.schedule import Progress
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier


def maker(makes=True):
    return SimpleNamespace(
        makes_images=makes, images=lambda x, progress: (x + progress.iteration, ['made'] * len(x))
    )


def test_the_batch_is_replaced_or_left_alone():
    inputs = torch.zeros(2, 3, 1, 1)
    found, samples = generate(dict(a=maker(False), b=maker()), inputs, None, Progress(4, 9))
    assert found.unique().tolist() == [4.0] and samples == ['made'] * 2
    found, samples = generate(dict(a=maker(False)), inputs, ['x'], Progress())
    assert found is inputs and samples == ['x']


@pytest.mark.parametrize(
    ('objectives', 'tasks', 'peers', 'words'),
    [
        (dict(a=maker(), b=maker()), False, [], 'objectives a, b each generate the images'),
        (dict(a=maker()), True, [], "'a' generates images, which have no labels, but the student"),
        (dict(a=maker()), False, ['p'], 'but the peers p have losses of their own'),
    ],
)
def test_refused_at_build(objectives, tasks, peers, words):
    with pytest.raises(ValueError, match=words):
        check_makers(objectives, tasks, peers)
    check_makers(dict(a=maker(False), b=maker(False)), tasks, peers)


def test_images_are_generated_or_read():
    real = SimpleNamespace()
    check_images(dict(a=maker()), NoImages(2))
    check_images(dict(a=maker(False)), real)
    with pytest.raises(ValueError, match='has no images to learn from, and no objective'):
        check_images(dict(a=maker(False)), NoImages(2))
    with pytest.raises(ValueError, match="'a' generates images, so that those of the training set"):
        check_images(dict(a=maker()), real)


def test_a_distiller_asks():
    """Its own losses need labels, which generated images have not."""
    objective = dict(type='mmkd.DFAD', size=8, width=4)
    options = dict(teacher=dict(config=tiny_classifier(8), checkpoint='random'))
    with pytest.raises(ValueError, match='Train without those: task_weight=None'):
        Distiller(tiny_classifier(4), dict(it=objective), **options)
    with pytest.raises(ValueError, match='the peers p have losses of their own'):
        Distiller(
            tiny_classifier(4),
            dict(it=objective),
            task_weight=None,
            peers=dict(p=build_model(tiny_classifier(4))),
            **options,
        )
