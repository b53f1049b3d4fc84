"""Image files against their annotations: size, EXIF, format, and what cannot be decoded."""

import io
import json
import os

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from mmkd.datasets import protection
from mmkd.datasets._pictures import read_header


def picture(root, index):
    return sorted((root / 'train').iterdir())[index]


def rewrite(path, mode='RGB', size=None, **options):
    """The same picture in another mode, size or format."""
    image = Image.open(path).convert(mode)
    image = image.resize(size) if size else image
    options.setdefault('format', 'JPEG')
    content = io.BytesIO()
    image.save(content, **options)
    path.write_bytes(content.getvalue())


def exif(orientation):
    data = Image.Exif()
    data[274] = orientation
    return data


def look(config, **options):
    (report,) = protection.audit(DATASETS.build({**config, **options}))
    return str(report)


def test_turned_by_exif_against_the_annotations(data):
    root, config = data('coco')
    rewrite(picture(root, 1), exif=exif(6))
    text = look(config)
    assert '1 image(s) carry an EXIF orientation and load as turned, which their' in text
    assert '000001.jpg (loads as 48 x 64, annotations 64 x 48)' in text
    load = {'type': 'mmdet.LoadImageFromFile', 'color_type': 'color_ignore_orientation'}
    assert 'EXIF' not in look(config, pipeline=[load])


def test_annotations_turned_but_not_the_image(data):
    root, config = data('coco')
    rewrite(picture(root, 1), size=(48, 64), exif=exif(8))
    assert 'EXIF' not in look(config)  # loads as 64 x 48, as the json says
    load = {'type': 'mmdet.LoadImageFromFile', 'color_type': 'color_ignore_orientation'}
    text = look(config, pipeline=[load])
    assert 'color_type leaves aside, but annotations follow: ' in text and '000001.jpg' in text


@pytest.mark.parametrize('orientation', [1, 2, 3])
def test_orientations_that_keep_the_size_are_fine(data, orientation):
    root, config = data('coco')
    rewrite(picture(root, 1), exif=exif(orientation))
    assert 'EXIF' not in look(config)


@pytest.mark.parametrize('name', ['coco', 'voc'])
def test_another_size_than_in_the_annotations(data, name):
    root, config = data(name)
    path = picture(root, 2) if name == 'coco' else root / 'VOC2007/JPEGImages/000002.jpg'
    rewrite(path, size=(128, 96))
    text = look(config)
    assert '1 image(s) have another size than in the annotations' in text
    assert '000002.jpg (loads as 128 x 96, annotations 64 x 48)' in text


@pytest.mark.parametrize(
    ('mode', 'options'),
    [
        ('L', {}),
        ('CMYK', {}),
        ('RGBA', {'format': 'PNG'}),
        ('LA', {'format': 'PNG'}),
        ('P', {'format': 'PNG'}),
        ('1', {'format': 'PNG'}),
        ('RGB', {'format': 'WEBP'}),
        ('RGB', {'format': 'TIFF'}),
    ],
)
def test_other_kinds_of_image_are_good(data, mode, options):
    root, config = data('coco')
    rewrite(picture(root, 2), mode, **options)
    dataset = DATASETS.build(config)
    (report,) = protection.protect(dataset)
    assert report.clean, str(report)
    assert dataset[2]['inputs'].shape == (3, 48, 64)


def test_deep_and_animated_images_are_reported(data):
    root, config = data('coco')
    deep = np.full((48, 64, 3), 700, np.uint16)
    picture(root, 1).write_bytes(cv2.imencode('.png', deep)[1].tobytes())
    frame = Image.new('P', (64, 48), 1)
    rewrite(picture(root, 2), 'P', format='GIF', save_all=True, append_images=[frame])
    text = look(config)
    assert '1 image(s) have 16 bits a channel, of which loading keeps the upper 8: ' in text
    assert '1 image(s) have several frames, of which loading takes the first: ' in text


def test_numbers_of_channels_differ(data):
    root, config = data('coco')
    rewrite(picture(root, 2), 'RGBA', format='PNG')
    load = {'type': 'mmdet.LoadImageFromFile', 'color_type': 'unchanged'}
    text = look(config, pipeline=[load])
    assert 'different numbers of channels, 3 (' in text and "set color_type='color'" in text
    assert 'numbers of channels' not in look(config)


def stretch(root, index, width, height):
    """Give an image and its annotations an extreme shape."""
    rewrite(picture(root, index), size=(width, height))
    path = root / 'annotations/train.json'
    content = json.loads(path.read_text())
    content['images'][index].update(width=width, height=height)
    path.write_text(json.dumps(content))


def test_extreme_shape_is_reported_and_tried(data):
    root, config = data('coco')
    stretch(root, 3, 1000, 3)
    resize = {'type': 'mmdet.Resize', 'scale': (100, 100), 'keep_ratio': True}
    pipeline = [config['pipeline'][0], resize]
    text = look(config)
    assert '1 image(s) are more than 20 times as long as wide: ' in text
    assert '000003.jpg (1000 x 3)' in text
    dataset = DATASETS.build({**config, 'pipeline': pipeline})
    words = r'000003\.jpg \(index 3, 1000 x 3 pixels\) does not get through the pipeline: '
    with pytest.raises(protection.DataError, match=words):
        protection.protect(dataset)


def damage(path, how):
    """Make a file that exists and cannot be decoded."""
    content = path.read_bytes()
    path.write_bytes({'half': content[: len(content) // 2], 'text': b'no image'}[how])


@pytest.mark.parametrize('how', ['half', 'text'])
def test_damaged_image_stops_an_evaluation_and_is_skipped_in_training(data, how):
    root, config = data('coco')
    damage(picture(root, 4), how)
    assert '1 image(s) of 6 opened cannot be decoded and will be skipped: ' in look(config)
    with pytest.raises(
        protection.DataError, match=r'1 image\(s\) cannot be read.*000004\.jpg \(it can'
    ):
        look(config, test_mode=True)


@pytest.mark.parametrize('kind', ['missing', 'empty', 'device', 'fifo', 'folder', 'link'])
def test_image_that_is_no_file(data, kind, tmp_path):
    root, config = data('coco')
    path = picture(root, 4)
    path.unlink()
    if kind == 'empty':
        path.touch()
    elif kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    elif kind != 'missing':
        path.symlink_to('/dev/zero' if kind == 'device' else tmp_path / 'nowhere')
    dataset = DATASETS.build(config)
    (report,) = protection.protect(dataset)
    assert [os.path.basename(one) for one in report.missing] == ['000004.jpg']
    assert dataset[4]['data_samples'].img_id != 4 and protection.skipped(dataset) == 1
    with pytest.raises(protection.DataError, match=r'000004\.jpg'):
        look(config, test_mode=True)


def test_nothing_can_be_decoded(data):
    root, config = data('coco')
    for index in range(6):
        damage(picture(root, index), 'text')
    with pytest.raises(protection.DataError, match='none of 6 images looked at can be decoded'):
        look(config)


def test_a_file_of_another_suffix_is_pointed_out(data):
    root, config = data('voc')
    for path in (root / 'VOC2007/JPEGImages').iterdir():
        path.rename(path.with_suffix('.JPG'))
    with pytest.raises(FileNotFoundError, match=r'no such file \(there is 00000\d\.JPG\)'):
        look(config)


def test_a_bomb_is_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / 'a.png'
    Image.new('1', (64, 64)).save(path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert read_header(str(path)).huge


def test_missing_package_of_a_loading_step_is_named_at_once(data):
    _, config = data('coco')
    load = {'type': 'mmdet.LoadImageFromFile', 'backend_args': {'backend': 'petrel'}}
    dataset = DATASETS.build({**config, 'pipeline': [load]})
    with pytest.raises(ImportError, match='needs a package that is not installed: .*petrel_client'):
        protection.protect(dataset)


def test_trying_the_pipeline_leaves_it_and_the_random_numbers_alone(data):
    _, config = data('coco')
    dataset = DATASETS.build(config)

    class Step:
        seen = 0
        drawn: list = []  # noqa: RUF012  shared by the copies

        def __call__(self, results):
            self.seen += 1
            self.drawn.append(np.random.rand())
            return results

    step = Step()
    dataset.pipeline.transforms.append(step)
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    protection.try_pipeline(dataset, 2)
    assert np.array_equal(before, np.random.get_state()[1])
    assert len(Step.drawn) == 1 and step.seen == 0
