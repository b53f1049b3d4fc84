"""Answers as logits, and batches as images."""

import numpy as np
import pytest
import torch

from mmkd.distiller import Distiller
from mmkd.pixels import Pixels
from mmkd.teacher import build_model
from mmkd.teachers.black_box import as_images, as_logits
from mmkd.testing import MEAN, STD, class_labels, tiny_classifier, tiny_retinanet


def test_probabilities_become_logits():
    p = np.array([[0.7, 0.3, 0.0], [0.2, 0.2, 0.6]])
    logits = as_logits('it', p, 2, 3, pixels=False, hard=False)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.softmax(1), torch.tensor(p).float(), rtol=0, atol=1e-6)
    assert float(logits[0, 2]) == pytest.approx(np.log(1e-8), rel=1e-6)


def test_labels_become_logits():
    logits = as_logits('it', [2, 0], 2, 3, pixels=False, hard=True)
    assert logits.argmax(1).tolist() == [2, 0]
    assert float(logits[0, 2]) == 0 and float(logits[0, 0]) == pytest.approx(np.log(1e-8))
    maps = as_logits('it', torch.tensor([[[1, 2]]]), 1, 3, pixels=True, hard=True)
    assert maps.shape == (1, 3, 1, 2) and maps.argmax(1).tolist() == [[[1, 2]]]


@pytest.mark.parametrize(
    ('found', 'pixels', 'hard', 'words'),
    [
        (np.ones((2, 4)) / 4, False, False, r'probabilities \(2, 3\), found the shape \(2, 4\)'),
        (np.ones((3, 3)) / 3, False, False, r'found the shape \(3, 3\)'),
        (np.ones((2, 3)) / 3, True, False, r'probabilities \(2, 3, h, w\), found'),
        (np.ones((2, 3)), False, True, r'labels \(2\), found the shape \(2, 3\)'),
        (np.array([0, 3]), False, True, 'labels from 0 to 3, but there are 3 classes'),
        (np.array([0.0, 0.5]), False, True, 'labels as whole numbers, found fractions'),
        (np.array([[np.nan, 0.5, 0.5]] * 2), False, False, 'NaN or infinity'),
        (np.ones((2, 3)), False, False, 'whose rows sum to 1, but they sum to 3 to 3'),
        (np.array([[1.2, -0.2, 0.0]] * 2), False, False, 'the least is -0.2'),
    ],
)
def test_answers_that_are_none(found, pixels, hard, words):
    with pytest.raises(ValueError, match=f'it .*{words}'):
        as_logits('it', found, 2, 3, pixels, hard)


@pytest.mark.parametrize('found', [None, ['a', 'b'], [[0.5, 0.5], [1.0]], {}])
def test_answers_that_are_no_numbers(found):
    with pytest.raises(TypeError, match='it must give an array or tensor of numbers, found'):
        as_logits('it', found, 2, 3, False, False)


def test_rows_may_miss_one_by_rounding():
    as_logits('it', np.full((1, 3), 0.3334), 1, 3, pixels=False, hard=False)


@pytest.mark.parametrize('swapped', [True, False])
def test_images_are_what_was_loaded(swapped):
    model = build_model(
        tiny_classifier(data_preprocessor=dict(mean=MEAN, std=STD, bgr_to_rgb=swapped))
    )
    files = torch.randint(0, 256, (2, 3, 8, 6), dtype=torch.uint8)  # BGR
    batch = model.data_preprocessor(dict(inputs=list(files), data_samples=class_labels([0, 1])))
    samples = class_labels([0, 1])
    samples[1].set_metainfo(dict(img_shape=(5, 6)))
    images = as_images(batch['inputs'], samples, Pixels.of(model))
    rgb = files.flip(1).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(images[0], rgb[0]) and np.array_equal(images[1], rgb[1][:5])
    assert images[0].dtype == np.uint8 and images[0].flags['C_CONTIGUOUS']


def distil(teacher, objective, student=None):
    student = student or tiny_classifier(width=4)
    return Distiller(build_model(student), dict(it=objective), teacher, preflight=False)


FUNCTION = dict(type='mmkd.Function', call='black_box_toys:thirds')


@pytest.mark.parametrize(
    ('objective', 'words'),
    [
        (dict(type='mmkd.SP', student='backbone', teacher='backbone'), 'shows class scores alone'),
        (dict(type='mmkd.Jacobian'), 'runs parts of the teacher again'),
        (dict(type='mmkd.FitNet', student='head.fc', teacher='head'), 'shows class scores alone'),
    ],
)
def test_methods_on_more_than_class_scores(objective, words):
    with pytest.raises(ValueError, match=words):
        distil(FUNCTION, objective)


def test_students_without_class_scores():
    with pytest.raises(ValueError, match='Function works with class scores of whole images'):
        distil(FUNCTION, dict(type='mmkd.PKD'), tiny_retinanet())
