"""Image files, and their pixels as a network wants them."""

import numpy as np
import pytest
import torch
from chain_toys import recipe, write
from PIL import Image

from mmkd.makers.pictures import (
    batches,
    features_of,
    files_of,
    seen_by,
    spread,
    training_batches,
)
from mmkd.pixels import Pixels
from mmkd.tap import Tap
from mmkd.teacher import Teacher, build_model
from mmkd.testing import tiny_classifier


def test_files_of_a_folder_and_of_a_config(images, tmp_path):
    folder = files_of(str(images / 'train'), 100)
    assert len(folder) == 12 and folder == sorted(folder)
    path = write(tmp_path, images, plain=dict(width=4))['plain']
    assert sorted(files_of(path, 100)) == folder
    assert files_of(str(images / 'train'), 3) == [folder[0], folder[4], folder[8]]
    with pytest.raises(FileNotFoundError, match='neither a folder of images nor a config'):
        files_of('nowhere', 3)


def test_spread():
    assert spread('abcdefgh', 4) == ['a', 'c', 'e', 'g'] and spread('ab', 4) == ['a', 'b']


def test_training_images_in_batches(images):
    model = build_model(tiny_classifier(4))
    found = list(training_batches(recipe(images), model, 7, 3))
    assert [len(inputs) for inputs, _ in found] == [3, 3, 1]
    assert [len(samples) for _, samples in found] == [3, 3, 1]
    assert sum(len(inputs) for inputs, _ in training_batches(recipe(images), model, 99, 5)) == 12


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'nothing')
    pixels = Pixels.of(build_model(tiny_classifier(4)))
    with pytest.raises(ValueError, match=r'a.png is damaged or no image'):
        next(batches([str(tmp_path / 'a.png')], pixels, (8, 8)))


def test_pixels_are_scaled_and_normalised_in_the_models_order(tmp_path):
    Image.fromarray(np.full((4, 6, 3), (10, 20, 30), np.uint8)).save(tmp_path / 'a.png')
    model = build_model(
        dict(
            tiny_classifier(4),
            data_preprocessor=dict(
                type='mmkd.ClassificationDataPreprocessor',
                mean=[1.0, 2.0, 3.0],
                std=[1.0, 2.0, 3.0],
                bgr_to_rgb=True,
            ),
        )
    )
    (found,) = batches([str(tmp_path / 'a.png')], Pixels.of(model), (2, 3))
    assert found.shape == (1, 3, 2, 3)
    assert found[0, :, 0, 0].tolist() == [9, 9, 9]


def test_a_network_of_one_channel_sees_grey_images(tmp_path):
    pixels = np.full((4, 6, 3), (10, 20, 30), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    grey = tiny_classifier(4, kind='mmdet', backbone=dict(in_channels=1))
    grey['data_preprocessor'] = dict(mean=[8.0], std=[2.0])
    teacher = Teacher(build_model(grey), checkpoint='random')
    (found,) = batches([str(tmp_path / 'a.png')], teacher.pixels, (32, 32))
    assert found.shape == (1, 1, 32, 32) and float(found[0, 0, 0, 0]) == 5
    tap = Tap.parse('head.fc')
    teacher.set_taps([tap])
    shown = seen_by(teacher, torch.full((2, 1, 32, 32), 18, dtype=torch.uint8))[tap][0]
    with torch.no_grad():
        wanted = teacher.model(torch.full((2, 1, 32, 32), 5.0), mode='tensor')
    torch.testing.assert_close(shown, wanted)


def test_features_are_averaged_over_places(images):
    teacher = Teacher(build_model(tiny_classifier(4)), checkpoint='random')
    files = files_of(str(images / 'train'), 5)
    found = features_of(teacher, 'backbone', files, (16, 16))
    inputs = next(batches(files, teacher.pixels, (16, 16)))
    with torch.no_grad():
        wanted = teacher.model.extract_feat(inputs)[-1].mean((2, 3))
    torch.testing.assert_close(found, wanted)
