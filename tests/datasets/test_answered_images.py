"""AnsweredImages: probabilities of a file as targets of the cross entropy."""

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image

from mmkd.datasets import AnsweredImages
from mmkd.models.preprocessor import mix_samples
from mmkd.registry import MODELS
from mmkd.testing import tiny_classifier

SCORES = np.array([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]], np.float32)
PIPELINE = [dict(type='mmcv.LoadImageFromFile'), dict(type='mmkd.PackClassInputs')]


@pytest.fixture
def file(tmp_path):
    (tmp_path / 'images').mkdir()
    for name in ('a', 'b'):
        Image.new('RGB', (8, 8), (10, 200, 30)).save(tmp_path / f'images/{name}.png')
    return written(tmp_path)


def written(folder, keys=('images/a.png', 'images/b.png'), scores=SCORES, **more):
    np.savez(folder / 'answers.npz', keys=np.array(keys, str), scores=scores, **more)
    return str(folder / 'answers.npz')


def test_the_target_is_the_answer(file):
    dataset = AnsweredImages(answers=file, pipeline=PIPELINE)
    data = pseudo_collate([dataset[i] for i in range(2)])
    assert [s.gt_label.tolist() for s in data['data_samples']] == [[1], [0]]
    assert dataset.get_cat_ids(0) == [1]
    model = MODELS.build(tiny_classifier(4))
    batch = model.data_preprocessor(data, True)
    logits = model(batch['inputs'], mode='tensor')
    wanted = -(torch.tensor(SCORES) * logits.log_softmax(1)).sum(1).mean()
    found = model(batch['inputs'], batch['data_samples'], mode='loss')['loss_cls']
    torch.testing.assert_close(found, wanted)
    mixture = mix_samples(data['data_samples'], [1, 0], 0.75, 3)[0]
    torch.testing.assert_close(mixture.gt_score, torch.tensor([0.325, 0.4, 0.275]))


def test_names_of_classes(file, tmp_path):
    assert not AnsweredImages(answers=file, pipeline=[]).metainfo
    file = written(tmp_path, classes=np.array(['x', 'y', 'z']))
    assert AnsweredImages(answers=file, pipeline=[]).metainfo['classes'] == ('x', 'y', 'z')
    with pytest.raises(ValueError, match='metainfo has the classes y, x, z, but the scores'):
        AnsweredImages(answers=file, pipeline=[], metainfo=dict(classes=('y', 'x', 'z')))


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='AnsweredImages: there is no file nothing.npz'):
        AnsweredImages(answers='nothing.npz', pipeline=[])
    (tmp_path / 'answers.npz').touch()
    with pytest.raises(FileNotFoundError, match='is a folder, .* It has answers.npz'):
        AnsweredImages(answers=str(tmp_path), pipeline=[])
    for options, message in (
        (dict(keys=['a.png', 'a.png']), 'names an image twice'),
        (dict(keys=['a.png']), 'has 1 keys and 2 rows'),
        (dict(scores=SCORES * 2), 'must give probabilities, whose rows sum to 1'),
    ):
        with pytest.raises(ValueError, match=f'AnsweredImages.*{message}'):
            AnsweredImages(answers=written(tmp_path, **options), pipeline=[])
