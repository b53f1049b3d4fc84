"""PseudoLabels as a command: formats, resuming, other thresholds, and what stops it."""

import json
import os
from types import SimpleNamespace

import cv2
import pytest
import torch
import view_toys
from mmengine.config import Config
from mmengine.registry import DATASETS
from pycocotools import mask as coding
from view_toys import BOX, Bright, BrightPixels, picture

from mmkd.chain import Product, build_maker
from mmkd.makers import pseudo_labels
from mmkd.teacher import build_model
from mmkd.testing import tiny_mask_rcnn, tiny_pspnet, tiny_retinanet


@pytest.fixture
def setting(tmp_path, monkeypatch):
    """Three images, and a 'trained' detector whose answers are known."""
    (tmp_path / 'images' / 'sub').mkdir(parents=True)
    for name in ('a', 'b', 'sub/c'):
        picture(tmp_path / 'images' / f'{name}.jpg')
    model = Bright()
    return use(monkeypatch, tmp_path, tiny_retinanet(4, 2), model), model


def use(monkeypatch, folder, built, answers, pack='mmdet.PackDetInputs'):
    """A product whose network answers as ``answers`` does."""
    config = Config(dict(view_toys.config(pack)._cfg_dict, model=built))
    config.dump(folder / 'teacher.py')
    network = build_model(built)
    torch.save(
        dict(state_dict=network.state_dict(), meta=dict(dataset_meta=dict(classes=['x', 'y']))),
        folder / 'teacher.pth',
    )

    class Known(pseudo_labels.ImageViews):
        def __init__(self, model, *args):
            super().__init__(answers, *args)

    monkeypatch.setattr(pseudo_labels, 'ImageViews', Known)
    return Product(str(folder / 'teacher.py'), str(folder / 'teacher.pth'), '')


def make(product, folder, **options):
    options = dict(type='mmkd.PseudoLabels', images=str(folder / 'images')) | options
    out = folder / 'out'
    out.mkdir(exist_ok=True)
    return build_maker(options)(dict(teacher=product) if product else {}, str(out))


def held(product):
    return json.loads(open(product.checkpoint).read())


def test_coco_with_pictures_and_a_dataset(setting, tmp_path):
    teacher, model = setting
    product = make(teacher, tmp_path, scales=[1.0, 2.0])
    content = held(product)
    assert [i['file_name'] for i in content['images']] == ['a.jpg', 'b.jpg', 'sub/c.jpg']
    assert [a['category_id'] for a in content['annotations']] == [2, 2, 2]
    x, y, w, h = content['annotations'][0]['bbox']
    assert (x, y, x + w, y + h) == pytest.approx(BOX, abs=1.5)
    assert content['info']['threshold'] == dict(x=0.5, y=0.5) and len(model.seen) == 12
    entry = Config.fromfile(str(tmp_path / 'out' / 'dataset.py')).pseudo
    assert entry.metainfo.classes == ('x', 'y') and os.path.isfile(entry.ann_file)
    assert (tmp_path / 'out' / 'check.png').is_file() and (tmp_path / 'out' / 'info.json').is_file()


def test_it_goes_on_and_another_threshold_asks_nobody(setting, tmp_path, monkeypatch):
    teacher, model = setting
    monkeypatch.setattr(pseudo_labels, 'SHARD', 1)
    real = Bright.test_step

    def interrupted(self, data):
        if len(self.seen) == 3:
            raise KeyboardInterrupt
        return real(self, data)

    monkeypatch.setattr(Bright, 'test_step', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(teacher, tmp_path)
    monkeypatch.setattr(Bright, 'test_step', real)
    assert not (tmp_path / 'out' / 'annotations.json').exists()
    whole = held(make(teacher, tmp_path))
    assert len(model.seen) == 3 + 4, 'the first image was done'
    assert len(whole['annotations']) == 3
    again = held(make(teacher, tmp_path, threshold=dict(y=0.2, other=1)))
    assert len(model.seen) == 7 and again['annotations'] == whole['annotations']
    with pytest.raises(ValueError, match='other options. Choose another folder, or set overwrite'):
        make(teacher, tmp_path, flip=False)
    make(teacher, tmp_path, flip=False, overwrite=True)
    assert len(model.seen) == 10


def test_voc_and_as_many_objects_as_labelled_images_have(setting, tmp_path):
    teacher, _ = setting
    (tmp_path / 'images' / 'sub' / 'c.jpg').unlink()
    coco = dict(
        images=[{}],
        annotations=[dict(category_id=1)],
        categories=[dict(id=5, name='x'), dict(id=1, name='y')],
    )
    (tmp_path / 'labelled.json').write_text(json.dumps(coco))
    options = dict(threshold='match', labelled=str(tmp_path / 'labelled.json'))
    product = make(teacher, tmp_path, format='voc', **options)
    assert open(product.checkpoint).read() == 'a\nb\n'
    assert '<name>y</name>' in (tmp_path / 'out' / 'Annotations' / 'a.xml').read_text()
    content = held(make(teacher, tmp_path, overwrite=True, per_class=True, **options))
    assert content['categories'] == [dict(id=5, name='x'), dict(id=1, name='y')]
    assert {a['category_id'] for a in content['annotations']} == {1}
    assert content['info']['threshold']['y'] == 0.9


def test_scores_below_the_threshold_are_neither(setting, tmp_path):
    teacher, _ = setting
    listed = tmp_path / 'two.txt'
    listed.write_text(''.join(f'{tmp_path}/images/{n}.jpg\n' for n in 'ab'))
    options = dict(images=str(listed), score='consensus', scales=[1.0, 2.0])
    content = held(make(teacher, tmp_path, threshold=0.5, **options))
    assert [a['iscrowd'] for a in content['annotations']] == [0, 0]
    with pytest.raises(ValueError, match='no object of 2 images .* best scores are 0.75'):
        make(teacher, tmp_path, threshold=0.8, ignore=0.7, **options)
    with pytest.raises(ValueError, match='best scores are below least=0.9'):
        make(teacher, tmp_path, threshold=0.9, least=0.9, overwrite=True, **options)
    for own in (dict(threshold=0.01), dict(threshold=0.5, ignore=0.01)):
        with pytest.raises(ValueError, match='of the score 0.01 .* below least=0.05'):
            make(teacher, tmp_path, overwrite=True, **own, **options)


def test_maps_of_a_segmentor(tmp_path, monkeypatch):
    (tmp_path / 'images').mkdir()
    picture(tmp_path / 'images' / 'a.png')
    teacher = use(monkeypatch, tmp_path, tiny_pspnet(4), BrightPixels(), 'mmseg.PackSegInputs')
    make(teacher, tmp_path, threshold=0.9, reduce_zero_label=True)
    labels = cv2.imread(str(tmp_path / 'out' / 'masks' / 'a.png'), -1)
    assert (labels[9:19, 11:29] == 2).all() and labels[0, 0] == 1
    entry = Config.fromfile(str(tmp_path / 'out' / 'dataset.py')).pseudo
    assert entry.reduce_zero_label and entry.img_suffix == '.png'
    with pytest.raises(ValueError, match='other options'):
        make(teacher, tmp_path, threshold=0.8, reduce_zero_label=True)
    with pytest.raises(ValueError, match='no pixel of 1 images reaches'):
        make(teacher, tmp_path, threshold=1.0, overwrite=True)
    for options in (dict(format='coco'), dict(ignore=0.3)):
        with pytest.raises(ValueError, match='does not fit a segmentor|are of objects, not of'):
            make(teacher, tmp_path, overwrite=True, **options)


def test_the_dataset_of_maps_has_those_images_alone(tmp_path, monkeypatch):
    """Beside them in the folder may be images that were not asked for."""
    (tmp_path / 'images').mkdir()
    for name in ('a', 'b', 'c'):
        picture(tmp_path / 'images' / f'{name}.png')
    (tmp_path / 'some.txt').write_text(''.join(f'{tmp_path}/images/{n}.png\n' for n in 'ac'))
    teacher = use(monkeypatch, tmp_path, tiny_pspnet(4), BrightPixels(), 'mmseg.PackSegInputs')
    make(teacher, tmp_path, images=str(tmp_path / 'some.txt'))
    entry = Config.fromfile(str(tmp_path / 'out' / 'dataset.py')).pseudo
    dataset = DATASETS.build(dict(entry, pipeline=[dict(type='mmseg.LoadImageFromFile')]))
    found = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [os.path.basename(one['img_path']) for one in found] == ['a.png', 'c.png']
    assert all(os.path.isfile(one['seg_map_path']) for one in found)


def test_maps_of_images_that_differ_by_their_suffix_alone(tmp_path, monkeypatch):
    """Of a.jpg and a.png the second had the map of the first, and one suffix was that of all."""
    (tmp_path / 'images').mkdir()
    first = picture(tmp_path / 'images' / 'a.png')
    second = picture(tmp_path / 'images' / 'a.bmp', box=(0, 0, 5, 5))
    teacher = use(monkeypatch, tmp_path, tiny_pspnet(4), BrightPixels(), 'mmseg.PackSegInputs')
    make(teacher, tmp_path)
    entry = Config.fromfile(str(tmp_path / 'out' / 'dataset.py')).pseudo
    dataset = DATASETS.build(dict(entry, pipeline=[dict(type='mmseg.LoadImageFromFile')]))
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    maps = {info['img_path']: cv2.imread(info['seg_map_path'], -1) for info in infos}
    assert {*maps} == {first, second}
    for file, labels in maps.items():
        assert (labels == (cv2.imread(file)[..., 0] > 127)).all()


def test_more_classes_than_a_map_can_hold(tmp_path, monkeypatch):
    """Label 256 became 0."""
    (tmp_path / 'images').mkdir()
    picture(tmp_path / 'images' / 'a.png')
    built = tiny_pspnet(4, num_classes=255)
    teacher = use(monkeypatch, tmp_path, built, BrightPixels(), 'mmseg.PackSegInputs')
    options = dict(classes=[f'c{i}' for i in range(255)], reduce_zero_label=True)
    with pytest.raises(ValueError, match='too few for the 255 classes of the teacher'):
        make(teacher, tmp_path, **options)


def test_another_shift_of_the_labels_is_another_option(tmp_path, monkeypatch):
    (tmp_path / 'images').mkdir()
    picture(tmp_path / 'images' / 'a.png')
    teacher = use(monkeypatch, tmp_path, tiny_pspnet(4), BrightPixels(), 'mmseg.PackSegInputs')
    make(teacher, tmp_path)
    with pytest.raises(ValueError, match='other options'):
        make(teacher, tmp_path, reduce_zero_label=True)


def test_instances_have_masks(tmp_path, monkeypatch):
    (tmp_path / 'images').mkdir()
    file = picture(tmp_path / 'images' / 'a.jpg')
    teacher = use(monkeypatch, tmp_path, tiny_mask_rcnn(4, 2), Bright(masks=True))
    (one,) = held(make(teacher, tmp_path, scales=[1.0, 2.0]))['annotations']
    found = coding.decode(one['segmentation'])
    assert one['area'] == found.sum() == (cv2.imread(file)[..., 0] > 127).sum()
    make(teacher, tmp_path, format='voc', overwrite=True)
    assert (tmp_path / 'out' / 'Annotations' / 'a.xml').is_file()


def test_mask_queries_of_mmdet_find_objects_where_they_are_told_to():
    model = torch.nn.Module()
    model.panoptic_head, model.test_cfg = torch.nn.Identity(), dict(instance_on=True)
    asked = SimpleNamespace(model=model)
    assert pseudo_labels.PseudoLabels('x')._format(asked) == 'coco'
    model.test_cfg = dict(panoptic_on=True)
    with pytest.raises(ValueError, match='only with model.test_cfg.instance_on=True'):
        pseudo_labels.PseudoLabels('x')._format(asked)


def test_damaged_images_are_told_at_the_end(setting, tmp_path):
    teacher, model = setting
    (tmp_path / 'images' / 'b.jpg').write_bytes(b'no image')
    with pytest.raises(ValueError, match='1 images cannot be read, the others are done.*b.jpg'):
        make(teacher, tmp_path)
    content = json.loads((tmp_path / 'out' / 'annotations.json').read_text())
    assert len(content['images']) == 2
    picture(tmp_path / 'images' / 'b.jpg')
    names = [image['file_name'] for image in held(make(teacher, tmp_path))['images']]
    assert names == ['a.jpg', 'b.jpg', 'sub/c.jpg'], 'repaired, the same command reads it'
    assert len(model.seen) == 6, 'and none of the others again'


def test_an_error_of_the_network_is_no_damaged_image(setting, tmp_path, monkeypatch):
    """Each image was said to be unreadable."""

    def fails(self, data):
        raise ValueError('of the network')

    monkeypatch.setattr(Bright, 'test_step', fails)
    with pytest.raises(ValueError, match='^of the network$'):
        make(setting[0], tmp_path)
    monkeypatch.setattr(BrightPixels, 'test_step', fails)
    built = tiny_pspnet(4)
    teacher = use(monkeypatch, tmp_path, built, BrightPixels(), 'mmseg.PackSegInputs')
    with pytest.raises(ValueError, match='^of the network$'):
        make(teacher, tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ('options', 'error', 'words'),
    [
        (dict(threshold='match'), ValueError, 'set labelled= to their COCO file'),
        (dict(per_class=True), ValueError, "an option of threshold='match'"),
        (dict(format='yolo'), ValueError, 'format must be one of'),
        (dict(format='masks'), ValueError, "format='masks' does not fit a anchor"),
        (dict(format='voc'), ValueError, 'have images NAME.jpg in one folder'),
        (dict(scales=[0]), ValueError, 'a scale must be a finite number above 0'),
        (dict(images='nowhere'), FileNotFoundError, 'neither a folder of images nor a config'),
        (dict(images='nowhere.txt'), FileNotFoundError, 'no file nowhere.txt'),
        (dict(threshold=3), ValueError, 'threshold must be a finite number from 0 to 1'),
    ],
)
def test_bad_input(setting, tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        make(setting[0], tmp_path, **options)


def test_no_teacher_no_classes_no_images(setting, tmp_path):
    teacher, _ = setting
    with pytest.raises(ValueError, match='needs a teacher: teacher= of the stage'):
        make(None, tmp_path)
    (tmp_path / 'none').mkdir()
    with pytest.raises(FileNotFoundError, match='has no images'):
        make(teacher, tmp_path, images=str(tmp_path / 'none'))
    state = torch.load(teacher.checkpoint)['state_dict']
    torch.save(dict(state_dict=state, meta={}), teacher.checkpoint)
    with pytest.raises(ValueError, match='does not name the classes of the teacher'):
        make(teacher, tmp_path)
    with pytest.raises(ValueError, match='1 classes are named, but bbox_head has 2'):
        make(teacher, tmp_path, classes=['x'])
    assert held(make(teacher, tmp_path, classes=['x', 'y']))['annotations']
