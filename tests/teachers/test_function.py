"""A function as teacher: what it gets, what is made of it, and its budget."""

import black_box_toys
import numpy as np
import pytest
import torch
from teacher_toys import assert_same, check_resumes, make, train

from mmkd.distiller import Distiller
from mmkd.teacher import build_model
from mmkd.teachers import build_teacher
from mmkd.testing import classification_batch, segmentation_batch, tiny_classifier, tiny_pspnet

ENTRY = dict(type='mmkd.Function', call='black_box_toys:thirds')


def distil(call, student=None, hard=False, **objective):
    student = build_model(student or tiny_classifier(width=4))
    teacher = build_teacher(dict(type='mmkd.Function', call=call, hard=hard))
    return Distiller(student, dict(it=dict(type='mmkd.KD') | objective), teacher, preflight=False)


def test_its_answer_is_what_objectives_see():
    model = distil(black_box_toys.brightness)
    inputs, samples = classification_batch(4)
    side = model.teachers['teacher'](inputs, samples, model.pixels)
    logits = side['head.fc'][0]
    assert logits.shape == (4, 3)
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(4), rtol=0, atol=1e-4)


def test_images_of_unequal_sizes_are_asked_size_by_size():
    black_box_toys.SEEN.clear()
    model = distil(black_box_toys.thirds)
    inputs, samples = classification_batch(3, (16, 16))
    for sample, shape in zip(samples, ((16, 16), (12, 16), (16, 16)), strict=True):
        sample.set_metainfo(dict(img_shape=shape))
    model.teachers['teacher'](inputs, samples, model.pixels)
    assert [images.shape for images in black_box_toys.SEEN] == [(2, 16, 16, 3), (1, 12, 16, 3)]


def test_labels_of_pixels():
    def call(images):
        return np.ones(images.shape[:3], dtype=int)

    model = distil(call, tiny_pspnet(), hard=True, resize='teacher')
    inputs, samples = segmentation_batch()
    for sample in samples:
        sample.set_metainfo(dict(img_shape=(64, 90)))
    logits = model.teachers['teacher'](inputs, samples, model.pixels)['decode_head.conv_seg'][0]
    assert logits.shape == (2, 3, 64, 96)
    assert bool((logits[..., :90].argmax(1) == 1).all()) and not logits[..., 90:].any()
    assert float(model.loss(inputs, samples)['kd.it.loss']) > 0


def test_pixels_of_images_of_unequal_sizes():
    model = distil(lambda x: np.ones(x.shape[:3], dtype=int), tiny_pspnet(), True, resize='teacher')
    inputs, samples = segmentation_batch()
    samples[0].set_metainfo(dict(img_shape=(64, 90)))
    samples[1].set_metainfo(dict(img_shape=(64, 96)))
    with pytest.raises(ValueError, match='do not make a batch'):
        model.teachers['teacher'](inputs, samples, model.pixels)


def test_weight_zero_asks_nothing_and_is_plain(tmp_path):
    objectives = dict(kd=dict(type='mmkd.KD', weight=0))
    one = train(tmp_path / 'a', teacher=ENTRY, objectives=objectives, steps=3)
    assert one.model.teachers['teacher'].asked == 0
    assert_same(one, train(tmp_path / 'b', distils=False, steps=3))


def test_queries_are_counted_logged_and_resumed(tmp_path):
    whole, again = check_resumes(tmp_path, 5, teacher=ENTRY)
    assert whole.model.teachers['teacher'].asked == again.model.teachers['teacher'].asked == 32
    scalars = whole.message_hub.log_scalars
    assert scalars['train/teacher.queries'].current() == 32


def test_a_budget(tmp_path):
    runner = make(tmp_path, teacher=dict(ENTRY, budget=10))
    with pytest.raises(ValueError, match='budget of 10 images is spent'):
        runner.train()
    assert len(runner.watch.losses) == 2


@pytest.mark.parametrize(
    ('call', 'error', 'words'),
    [
        (3, TypeError, 'must be a function or'),
        ('black_box_toys', TypeError, "call must be 'package.module:name' or"),
        ('black_box_toys:nothing', ValueError, 'there is no'),
        ('no_such_module:f', ValueError, 'there is no'),
        ('black_box_toys:NOT_A_FUNCTION', TypeError, 'is a int, which cannot be called'),
    ],
)
def test_what_cannot_be_called(call, error, words):
    with pytest.raises(error, match=words):
        build_teacher(dict(type='mmkd.Function', call=call))


def test_bad_budget():
    with pytest.raises(ValueError, match='budget'):
        build_teacher(dict(ENTRY, budget=0))


def test_answers_are_checked():
    model = distil(lambda images: np.ones((len(images), 3)))
    inputs, samples = classification_batch(2)
    with pytest.raises(ValueError, match='rows sum to 1'):
        model.teachers['teacher'](inputs, samples, model.pixels)


def test_the_plan_names_it():
    assert 'Function, StandIn, 0.00 M parameters, black_box_toys:thirds' in str(
        distil('black_box_toys:thirds').plan
    )
