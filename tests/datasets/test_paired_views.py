"""Views of an image: the same geometry as the image, whatever the pipeline does."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from mmkd.datasets.paired_views import KeepView, LoadView, SplitViews

PACK = dict(type='mmkd.PackViews', pack=dict(type='mmkd.PackClassInputs'))


@pytest.fixture
def folders(tmp_path):
    """A grey image and its partner in colour, whose green is the grey."""
    for name in ('ir/a', 'rgb/a'):
        (tmp_path / name).mkdir(parents=True)
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'ir' / 'a' / '1.png'), grey)
    colour = np.stack((0 * grey, grey, 0 * grey), 2)
    cv2.imwrite(str(tmp_path / 'rgb' / 'a' / '1.png'), colour)
    return tmp_path


def run(transforms, path):
    with DefaultScope.overwrite_default_scope('mmengine'):
        pipeline = Compose([dict(type='LoadImageFromFile'), *transforms])
    results = dict(img_path=str(path), gt_label=0, sample_idx=0)
    return pipeline(results)


def load(folders, **options):
    return dict(
        type='mmkd.LoadView',
        name='rgb',
        images=str(folders / 'ir'),
        folder=str(folders / 'rgb'),
        **options,
    )


@pytest.mark.parametrize('seed', range(3))
def test_both_pictures_move_alike(folders, seed):
    np.random.seed(seed)
    moves = [
        dict(type='Resize', scale=(60, 40), keep_ratio=False),
        dict(type='RandomFlip', prob=0.5),
        dict(type='mmkd.RandomCrop', size=24, padding=2),
    ]
    transforms = [load(folders), *moves, dict(type='mmkd.SplitViews'), PACK]
    packed = run(transforms, folders / 'ir' / 'a' / '1.png')
    image, view = packed['inputs'], packed['data_samples'].views.rgb
    assert image.shape == view.shape == (3, 24, 24)
    assert bool((view[1] == image[1]).all()) and not view[0].any()
    moved = packed['data_samples'].to('cpu').views.rgb
    assert bool((moved == view).all())


def test_what_is_kept_does_not_change(folders):
    transforms = [
        dict(type='mmkd.KeepView', name='clean'),
        dict(type='RandomGrayscale', prob=1.0, keep_channels=True),
        PACK,
    ]
    packed = run(transforms, folders / 'rgb' / 'a' / '1.png')
    image, view = packed['inputs'], packed['data_samples'].views.clean
    assert bool((image[0] == image[2]).all()) and not view[0].any() and bool(view[1].any())


def test_a_pipeline_without_views_packs_none(folders):
    packed = run([PACK], folders / 'rgb' / 'a' / '1.png')
    assert list(packed['data_samples'].views.keys()) == []


def dataset(*transforms, path='x'):
    return type(
        'Dataset',
        (),
        dict(
            pipeline=SimpleNamespace(transforms=list(transforms)),
            __len__=lambda self: 1,
            get_data_info=lambda self, i: dict(img_path=str(path)),
        ),
    )()


def named(name):
    return type(name, (), {})()


def test_what_moves_pixels_behind_a_view_is_refused():
    for view in (KeepView(), SplitViews()):
        pack = named('PackViews')
        view.check_dataset(dataset(named('RandomFlip'), view, named('RandomErasing'), pack))
        with pytest.raises(ValueError, match='RandomFlip, Resize behind it would move pixels'):
            view.check_dataset(dataset(view, named('RandomFlip'), named('Resize'), pack))
        with pytest.raises(ValueError, match='end the pipeline with mmkd.PackViews'):
            view.check_dataset(dataset(view))


def test_pairs_are_looked_for_before_training(folders):
    view = LoadView('rgb', str(folders / 'ir'), str(folders / 'rgb'))
    image = folders / 'ir' / 'a' / '1.png'
    view.check_dataset(dataset(view, SplitViews(), path=image))
    with pytest.raises(ValueError, match='nothing splits them again'):
        view.check_dataset(dataset(view, path=image))
    with pytest.raises(FileNotFoundError, match=r'there is no .*2\.\*, which view .rgb. of'):
        view.check_dataset(dataset(SplitViews(), path=image.with_name('2.png')))
    with pytest.raises(FileNotFoundError, match='is not in images='):
        view.partner(str(folders / 'rgb' / 'a' / '1.png'))
    with pytest.raises(FileNotFoundError, match='1.jpg, which view'):
        LoadView('rgb', str(folders / 'ir'), str(folders / 'rgb'), '.jpg').partner(str(image))


def test_partners_of_another_size_and_damaged_ones(folders):
    partner = folders / 'rgb' / 'a' / '1.png'
    cv2.imwrite(str(partner), np.zeros((8, 9, 3), np.uint8))
    image = folders / 'ir' / 'a' / '1.png'
    with pytest.raises(ValueError, match='has 8 x 9 pixels and .* 20 x 30'):
        run([load(folders)], image)
    packed = run([load(folders, resize=True), dict(type='mmkd.SplitViews'), PACK], image)
    assert packed['inputs'].shape == packed['data_samples'].views.rgb.shape == (3, 20, 30)
    partner.write_bytes(b'nothing')
    with pytest.raises(ValueError, match='damaged or no image'):
        run([load(folders)], image)


def test_images_without_a_partner_may_be_left_out(folders, log):
    other = folders / 'ir' / 'a' / '2.png'
    cv2.imwrite(str(other), np.zeros((20, 30), np.uint8))
    assert run([load(folders, missing='skip')], other) is None
    view = LoadView('rgb', str(folders / 'ir'), str(folders / 'rgb'), missing='skip')
    both = dataset(view, SplitViews())
    paths = [folders / 'ir' / 'a' / '1.png', other]
    kind = type(both)
    kind.__len__ = lambda self: len(paths)
    kind.get_data_info = lambda self, i: dict(img_path=str(paths[i]))
    view.check_dataset(both)
    assert "1 of 2 images have no view 'rgb' and are left out" in log.text
    kind.test_mode = True
    with pytest.raises(FileNotFoundError, match='2'):
        view.check_dataset(both)
    kind.test_mode = False
    del paths[0]
    with pytest.raises(FileNotFoundError, match='no image has a partner. LoadView: there is no'):
        view.check_dataset(both)
    with pytest.raises(ValueError, match='missing must be one of'):
        LoadView('rgb', 'x', 'y', missing='ignore')
