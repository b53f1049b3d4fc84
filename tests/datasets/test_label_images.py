"""Label images of segmentation: depth, colours, sizes, values, and what is not read."""

import os

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from mmkd.datasets import _label_images, protection


def label(root, index=2):
    return sorted(root.glob('gtFine/train/shapes/*_labelTrainIds.png'))[index]


def write(path, values):
    path.write_bytes(cv2.imencode('.png', values)[1].tobytes())


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def look(config, **options):
    (report,) = protection.audit(DATASETS.build({**config, **options}))
    return report


def loading(**options):
    return [{'type': 'mmseg.LoadImageFromFile'}, {'type': 'mmseg.LoadAnnotations', **options}]


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
def test_sixteen_bits_are_read_as_they_are(data, backend):
    root, config = data('cityscapes')
    config['pipeline'] = loading(imdecode_backend=backend)
    before = DATASETS.build(config)[2]['gt_seg_map']
    values = read(label(root)).astype(np.uint16)
    values[values == 255] = 65535  # all bits set still mean "ignore" after the loader's cast
    write(label(root), values)
    assert look(config).clean
    assert np.array_equal(DATASETS.build(config)[2]['gt_seg_map'], before)


@pytest.mark.parametrize('value', [256, 300, 26001])
def test_values_that_the_loading_step_cuts_off(data, value):
    root, config = data('cityscapes')
    values = read(label(root)).astype(np.uint16)
    values[:2, :3] = value
    write(label(root), values)
    words = (
        rf'{label(root).name} holds values above 255 \({value}\), of which LoadAnnotations keeps'
    )
    with pytest.raises(protection.DataError, match=words):
        look(config)


def test_values_above_255_are_counted_where_the_loading_step_keeps_them(data):
    root, config = data('cityscapes')
    values = read(label(root)).astype(np.uint16)
    values[:2, :3] = 300
    write(label(root), values)
    load = {'type': 'mmcv.LoadAnnotations', 'with_bbox': False, 'with_label': False}
    report = look(config, pipeline=[{**load, 'with_seg': True}])
    assert report.unknown == {'label 300': 6}


@pytest.mark.parametrize('channels', [3, 4])
def test_colour_labels(data, channels):
    root, config = data('cityscapes')
    write(label(root), np.zeros((48, 64, channels), np.uint8))
    with pytest.raises(
        protection.DataError, match=f'{label(root).name} has {channels} channels, where'
    ):
        look(config)


def test_palette_labels_are_read_by_pillow_only(data):
    root, config = data('cityscapes')
    image = Image.open(label(root)).convert('P')
    image.putdata(read(label(root)).reshape(-1).tolist())
    image.save(label(root))
    assert look(config).clean
    with pytest.raises(protection.DataError, match=r"3 channels.*imdecode_backend='pillow'"):
        look(config, pipeline=loading(imdecode_backend='cv2'))


def test_label_of_another_size(data):
    root, config = data('cityscapes')
    write(label(root), cv2.resize(read(label(root)), (32, 24), interpolation=cv2.INTER_NEAREST))
    text = str(look(config))
    assert '1 image(s) have a label image of another size: ' in text
    assert 'shapes_000002_000019_leftImg8bit.png (image 64 x 48, label 32 x 24)' in text


def test_nothing_but_ignored_pixels(data):
    root, config = data('cityscapes')
    for index in range(6):
        write(label(root, index), np.full((48, 64), 255, np.uint8))
    assert 'all pixels of the label images looked at are ignored (255)' in str(look(config))


@pytest.mark.parametrize('index', range(6))
@pytest.mark.parametrize('content', ['colours', 'cut off', 'text'])
def test_the_odd_one_is_found(data, index, content, monkeypatch):
    monkeypatch.setattr(_label_images, 'OPENED', 1)
    root, config = data('cityscapes')
    if content == 'text':
        label(root, index).write_text('no image')
    elif content == 'colours':
        write(label(root, index), np.zeros((48, 64, 3), np.uint8))
    else:
        write(label(root, index), np.full((48, 64), 1000, np.uint16))
    with pytest.raises(protection.DataError, match=label(root, index).name):
        look(config)


@pytest.mark.parametrize('kind', ['missing', 'fifo', 'device', 'empty'])
def test_label_that_is_no_file(data, kind):
    root, config = data('cityscapes')
    dataset = DATASETS.build(config)
    protection.tolerate(dataset)
    path = label(root, 5)
    path.unlink()
    if kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'device':
        path.symlink_to('/dev/zero')
    elif kind == 'empty':
        path.touch()
    with pytest.raises(FileNotFoundError, match=f'{path.name} cannot be read: '):
        look(config)
    with pytest.raises(protection.DataError, match=f'label image .*{path.name}'):
        dataset[5]


def test_suffixes_in_upper_case(data, log):
    root, config = data('cityscapes')
    paths = sorted(root.glob('leftImg8bit/train/shapes/*.png'))
    paths[0].rename(paths[0].with_suffix('.PNG'))
    protection.check_paths(config)
    assert 'leaves out images in' in log.text and "1 in '.PNG'" in log.text
    for path in paths[1:]:
        path.rename(path.with_suffix('.PNG'))
    with pytest.raises(ValueError, match=r"img_suffix \(images there end: 6 in '\.PNG'\)"):
        protection.check_paths(config)


def test_label_values_that_are_no_class(data, log):
    root, config = data('cityscapes')
    for path in root.glob('gtFine/train/shapes/*.png'):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        labels[0, :3] = 19
        cv2.imwrite(str(path), labels)
    (report,) = protection.audit(DATASETS.build(config))
    assert report.unknown == {'label 19': 18} and 'must be below 19 or 255' in log.text
