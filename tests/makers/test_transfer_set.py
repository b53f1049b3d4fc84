"""TransferSet: neighbours, cells, the manifest, and the dataset of it."""

import hashlib
import json

import numpy as np
import pytest
import torch
from chain_toys import write
from mmengine.config import Config
from PIL import Image

from mmkd.chain import Product, build_maker
from mmkd.datasets import ImageFolder
from mmkd.makers.pool import Pool
from mmkd.makers.transfer_set import cells_taken, nearest_others, patched
from mmkd.testing import tiny_pspnet


def test_values_of_the_sheet():
    """p .3 of 16 cells: 4.8 on average, and .7^16 = .003323 of the images stay as they are."""
    draw = torch.Generator().manual_seed(0)
    counts = torch.stack([cells_taken(4, 0.3, draw).sum() for _ in range(20_000)]).double()
    assert float(counts.mean()) == pytest.approx(4.8, abs=0.05)
    assert float((counts == 0).double().mean()) == pytest.approx(0.003323, abs=0.001)


def test_neighbours():
    """Never the row itself; of equally near ones the first."""
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert nearest_others(rows).tolist() == [3, 0, 0, 0]
    torch.manual_seed(0)
    many = torch.randn(600, 3)
    apart = torch.cdist(many, many, compute_mode='donot_use_mm_for_euclid_dist')
    assert torch.equal(nearest_others(many), apart.fill_diagonal_(torch.inf).argmin(1))


def test_cells():
    image, other = torch.zeros(3, 5, 4), torch.ones(3, 5, 4)
    taken = torch.tensor([[True, False], [False, True]])
    found = patched(image, other, taken)
    assert found[0].tolist() == [[1, 1, 0, 0]] * 3 + [[0, 0, 1, 1]] * 2
    assert torch.equal(found[0], found[2])


def made(paths, folder, config='plain', **options):
    given = dict(teacher=Product(paths['teacher'], 'random', ''))
    folder.mkdir(exist_ok=True)
    options = dict(type='mmkd.TransferSet', config=paths[config], grid=2, **options)
    return build_maker(options)(given, str(folder))


def test_the_set(paths, tmp_path):
    torch.manual_seed(0)
    product = made(paths, tmp_path / 'a', copies=2, share=0.5)
    entries = json.loads((tmp_path / 'a' / 'manifest.json').read_text())['files']
    pool = Pool('X', paths['plain'])
    assert len(entries) == 24 and product.scores == dict(images=24)
    for entry in entries:
        file = tmp_path / 'a' / entry['file']
        assert entry['image'] != entry['neighbour']
        assert entry['sha256'] == hashlib.sha256(file.read_bytes()).hexdigest()
        found = torch.from_numpy(np.array(Image.open(file))).flip(2).permute(2, 0, 1)
        own, other = (pool.image(entry[key]) for key in ('image', 'neighbour'))
        assert bool(((found == own) | (found == other)).all())
    torch.manual_seed(0)
    made(paths, tmp_path / 'b', copies=2, share=0.5)
    assert json.loads((tmp_path / 'b' / 'manifest.json').read_text())['files'] == entries
    pipeline = [dict(type='mmcv.LoadImageFromFile'), dict(type='mmkd.PackClassInputs')]
    dataset = ImageFolder(manifest=product.checkpoint, pipeline=pipeline)
    assert len(dataset) == 24 and 'gt_label' not in dataset[3]['data_samples']
    with pytest.raises(FileNotFoundError, match='there are no images in nowhere.json'):
        ImageFolder(manifest='nowhere.json', pipeline=pipeline)


def test_no_cell_is_the_set_itself(paths, tmp_path):
    made(paths, tmp_path / 'a', copies=1, share=0)
    pool = Pool('X', paths['plain'])
    for i in range(12):
        found = torch.from_numpy(np.array(Image.open(tmp_path / f'a/images/{i}_0.png')))
        assert torch.equal(found.flip(2).permute(2, 0, 1), pool.image(i))


def test_bad_input(paths, images, tmp_path):
    for options, message in (
        (dict(copies=0), 'copies must be a whole number of at least 1'),
        (dict(share=1.5), 'share must be a finite number from 0 to 1'),
    ):
        with pytest.raises(ValueError, match=message):
            made(paths, tmp_path / 'a', **options)
    with pytest.raises(ValueError, match='needs a teacher'):
        build_maker(dict(type='mmkd.TransferSet', config=paths['plain']))({}, str(tmp_path))
    maker = build_maker(dict(type='mmkd.TransferSet', config=paths['plain'], grid=9))
    given = dict(teacher=Product(paths['teacher'], 'random', ''))
    with pytest.raises(ValueError, match=r'grid=9 has more cells on a side .* \(8, 8\)'):
        maker(given, str(tmp_path))
    one = write(tmp_path, images, one={'train_dataloader.dataset.indices': 1})
    with pytest.raises(ValueError, match='has 1 images, but each needs a neighbour'):
        made(one | paths | dict(one=one['one']), tmp_path / 'a', config='one')
    Config(dict(model=tiny_pspnet(4))).dump(tmp_path / 'other.py')
    with pytest.raises(ValueError, match='TransferSet needs an image classifier'):
        made(dict(paths, teacher=str(tmp_path / 'other.py')), tmp_path / 'a')
