"""Runs on few labels: what is labelled, what is left, and equal numbers of steps."""

import pytest
from test_configs import FOLDER

from mmkd.config import load_config

CASES = [
    ('retinanet', 'bccd', 205, 41),
    ('pspnet', 'camvid', 367, 74),
    ('maskrcnn', 'scenes', 300, 60),
]


def numbers(dataset):
    """Positions in the whole set of the images of a dataset."""
    indices = dataset['indices']
    return [*range(indices)] if isinstance(indices, int) else [*indices]


@pytest.mark.parametrize(('model', 'data', 'images', 'labelled'), CASES)
def test_few_and_rest_are_all_images(model, data, images, labelled):
    def of(stem):
        return load_config(str(FOLDER / 'small' / f'{stem}.py')).train_dataloader

    few = of(f'{model}_r18w8_few_{data}').dataset
    assert few == of(f'{model}_r18w32_few_{data}').dataset  # of teacher and student
    known, rest = numbers(few.dataset), numbers(of(f'{model}_r18w8_rest_{data}').dataset)
    assert len(known) == labelled and sorted(known + rest) == list(range(images))
    assert abs(few.times * labelled - images) < 4  # less than a batch
    own, pseudo = of(f'{model}_r18w8_pseudo_{data}').dataset.datasets
    assert numbers(own) == known
    assert pseudo.type == 'CocoDataset' or numbers(pseudo) == rest
    for path in (FOLDER / 'small').glob(f'*_unlabelled_{model}_*_{data}.py'):
        loader = load_config(str(path)).train_dataloader
        repeated, free = loader.dataset.datasets
        assert repeated == few and numbers(free.dataset) == rest
        assert loader.sampler.batch_size == loader.batch_size == 8
