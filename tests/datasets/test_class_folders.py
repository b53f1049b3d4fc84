"""Class folders: labels, order, odd files, and what is missing."""

import cv2
import numpy as np
import pytest
from mmengine.dataset import RepeatDataset
from PIL import Image

from mmkd.datasets import ClassFolders
from mmkd.datasets.class_folders import images_below
from mmkd.datasets.protection import check_paths, protect, skipped
from mmkd.datasets.synthetic import write_folders
from mmkd.families import classifier
from mmkd.registry import DATASETS

LOAD = [dict(type='LoadImageFromFile'), dict(type='mmkd.PackClassInputs')]


@pytest.fixture
def root(tmp_path):
    """Three images of each of two classes, in several formats."""
    for name, value in (('cat', 40), ('ant', 200)):
        folder = tmp_path / 'train' / name
        (folder / 'more').mkdir(parents=True)
        for file in ('a.jpg', 'b.PNG', 'more/c.JPEG'):
            suffix = file[-4:].lower().replace('jpeg', '.jpg')
            data = cv2.imencode(suffix, np.full((6, 8, 3), value, np.uint8))[1]
            (folder / file).write_bytes(data.tobytes())
        (folder / 'notes.txt').write_text('no image')
        (folder / '._a.jpg').write_text('no image')
    (tmp_path / 'train' / '.thumbs').mkdir()
    return tmp_path


def test_labels_follow_the_alphabet(root):
    data = ClassFolders(data_root=str(root), pipeline=LOAD)
    assert data.metainfo['classes'] == ('ant', 'cat')
    assert [data.get_data_info(i)['gt_label'] for i in range(6)] == [0, 0, 0, 1, 1, 1]
    assert [data.get_cat_ids(i) for i in (0, 5)] == [[0], [1]]
    sample = data[4]['data_samples']
    assert sample.gt_label.tolist() == [1] and sample.sample_idx == 4
    assert data[4]['inputs'].float().mean() == 40
    assert data[4]['inputs'].shape == (3, 6, 8) and sample.img_path.endswith('cat/b.PNG')


def test_an_order_can_be_given_and_classes_left_out(root):
    data = ClassFolders(data_root=str(root), metainfo=dict(classes=['cat', 'ant']))
    assert data.get_data_info(0)['img_path'].endswith('cat/a.jpg')
    data = ClassFolders(data_root=str(root), metainfo=dict(classes=('cat',)))
    assert len(data) == 3 and data.metainfo['classes'] == ('cat',)


def test_the_generator_writes_what_it_reads(tmp_path):
    write_folders(tmp_path, 5, 5, size=(24, 20))
    for split in ('train', 'val'):
        data = ClassFolders(data_root=str(tmp_path), data_prefix=dict(img_path=split))
        assert len(data) == 5 and len(data.metainfo['classes']) == 5


def test_a_link_back_is_refused(root):
    (root / 'train/cat/more/again').symlink_to(root / 'train')
    with pytest.raises(
        ValueError, match=f'cat/more/again is a link to {root / "train"}, the folder'
    ):
        ClassFolders(data_root=str(root))


def test_links_to_other_folders_are_followed(tmp_path):
    """Also to one whose name is the beginning of the own; an ImageFolder left their images out."""
    for folder in ('train', 'train_more'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'a.jpg').touch()
    (tmp_path / 'train_more' / 'link').symlink_to(tmp_path / 'train')
    more = tmp_path / 'train_more'
    assert sorted(images_below(more)) == [more / 'a.jpg', more / 'link' / 'a.jpg']


def test_a_class_without_images_is_refused(root):
    (root / 'train' / 'bee').mkdir()
    (root / 'train' / 'bee' / 'readme.txt').write_text('none yet')
    with pytest.raises(ValueError, match=r"folder of class 'bee', .* has no image \(.bmp"):
        ClassFolders(data_root=str(root))


def test_folders_that_are_not_there_are_named(root):
    with pytest.raises(FileNotFoundError, match="class 'dog' of metainfo has no folder"):
        ClassFolders(data_root=str(root), metainfo=dict(classes=('dog',)))
    with pytest.raises(FileNotFoundError, match='there is no folder .*test; set data_root'):
        ClassFolders(data_root=str(root), data_prefix=dict(img_path='test'))
    with pytest.raises(ValueError, match='has no folders of classes'):
        ClassFolders(data_root=str(root), data_prefix=dict(img_path='train/cat/more'))
    with pytest.raises(FileNotFoundError, match='exists up to'):
        check_paths(dict(type='mmkd.ClassFolders', data_root=str(root / 'gone')))


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGBA', 'P', 'LA', 'I;16'])
def test_every_kind_of_image_becomes_three_channels(mode, root):
    image = Image.new('L', (8, 6), 100)
    if mode == 'I;16':
        image = Image.fromarray(np.full((6, 8), 100 * 257, np.uint16))
    suffix = 'jpg' if mode in ('L', 'CMYK') else 'png'
    path = root / 'train' / 'ant' / f'0.{suffix}'
    (image if mode == 'I;16' else image.convert(mode)).save(path)
    inputs = ClassFolders(data_root=str(root), pipeline=LOAD)[0]['inputs']
    assert inputs.shape == (3, 6, 8)
    assert (inputs.float() - 100).abs().max() <= 3


def test_other_colour_types_are_refused_by_the_packer(root):
    Image.new('L', (8, 6), 100).save(root / 'train' / 'ant' / '0.png')
    load = [dict(type='LoadImageFromFile', color_type='unchanged'), LOAD[1]]
    with pytest.raises(ValueError, match=r"0.png has the shape \(6, 8\).*color_type='color'"):
        ClassFolders(data_root=str(root), pipeline=load)[0]


@pytest.mark.parametrize('load', ['LoadImageFromFile', 'mmkd.LoadImageOnce'])
def test_what_cannot_be_decoded_is_skipped_in_training_and_named_in_testing(load, root, log):
    (root / 'train' / 'ant' / 'a.jpg').write_bytes(b'\xff\xd8\xff\xe0 cut off')
    pipeline = [dict(type=load), LOAD[1]]
    data = ClassFolders(data_root=str(root), pipeline=pipeline)
    protect(data)
    assert data[0]['data_samples'].sample_idx != 0  # another one is drawn
    assert skipped(data) == 1 and 'skipped' in log.text and 'ant/a.jpg' in log.text
    test = ClassFolders(data_root=str(root), pipeline=pipeline, test_mode=True)
    with pytest.raises(
        ValueError, match=r'1 image\(s\) cannot be read.*ant/a.jpg \(it cannot be de'
    ):
        protect(test)


def test_wrapped_in_a_repetition_numbers_stay_those_of_the_images(root):
    one = dict(type='mmkd.ClassFolders', data_root=str(root), pipeline=LOAD)
    data = RepeatDataset(DATASETS.build(dict(one, type='mmkd.ClassFolders')), times=2)
    samples = [data[i]['data_samples'] for i in (1, 7)]
    assert classifier.sample_indices(samples).tolist() == [1, 1]
    assert data.metainfo['classes'] == ('ant', 'cat')
