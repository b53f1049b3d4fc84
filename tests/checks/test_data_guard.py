"""Data that cannot be trained on or scored are refused before the first step."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.dataset import BaseDataset, DefaultSampler, InfiniteSampler, RepeatDataset
from mmengine.registry import DATASETS
from mmengine.runner.runner import _SlicedDataset
from torch.utils.data import BatchSampler, DataLoader

from mmkd.checks.data_guard import DataGuardHook, check_batches, check_metrics
from mmkd.datasets import Unlabelled, protection
from mmkd.datasets.scenes import CLASSES, PALETTE
from mmkd.datasets.synthetic import write_coco
from mmkd.engine.runner import Runner
from mmkd.errors.ending import describe

LOAD = [{'type': 'mmdet.LoadImageFromFile'}, {'type': 'mmdet.LoadAnnotations', 'with_bbox': True}]


class Images(BaseDataset):
    def load_data_list(self):
        return [{'img_path': str(i)} for i in range(3)]


# Batches ----------------------------------------------------------------------------------------


def loader(sampler, **options):
    data = Images()
    return DataLoader(data, sampler=sampler(data, seed=0), **options)


def test_a_set_smaller_than_a_batch():
    with pytest.raises(ValueError, match=r'train_dataloader: 3 image\(s\) make no batch of 8 with'):
        check_batches(
            'train_dataloader', loader(DefaultSampler, batch_size=8, drop_last=True), True
        )
    data = Images()
    sampler = BatchSampler(DefaultSampler(data, seed=0), 8, drop_last=True)
    with pytest.raises(ValueError, match='make no batch of 8'):
        check_batches('val_dataloader', DataLoader(data, batch_sampler=sampler), True)


@pytest.mark.parametrize(
    ('sampler', 'drop_last', 'ends'),
    [
        (DefaultSampler, False, True),
        (InfiniteSampler, True, False),
        (InfiniteSampler, False, False),
    ],
)
def test_a_small_set_that_makes_batches(sampler, drop_last, ends):
    small = loader(sampler, batch_size=8, drop_last=drop_last)
    check_batches('train_dataloader', small, ends)
    assert len(next(iter(DataLoader(range(3), sampler=small.sampler, batch_size=8))))


def test_a_set_repeated_no_times():
    data = RepeatDataset(Images(), 0)
    small = DataLoader(data, sampler=DefaultSampler(data, seed=0), batch_size=2)
    with pytest.raises(ValueError, match='train_dataloader: the dataset has no image'):
        check_batches('train_dataloader', small, True)


def test_a_pass_that_never_ends():
    with pytest.raises(ValueError, match='val_dataloader: InfiniteSampler never ends'):
        check_batches('val_dataloader', loader(InfiniteSampler), True)


def test_images_left_out_of_an_evaluation_are_reported(log):
    check_batches('val_dataloader', loader(DefaultSampler, batch_size=2, drop_last=True), True)
    assert 'leaves 1 image(s) out of the evaluation' in log.text


def test_a_slice_of_a_dataset_is_guarded():
    data = Images()
    assert list(protection.leaves(_SlicedDataset(RepeatDataset(data, 2), 4))) == [data]


# Objects ----------------------------------------------------------------------------------------


@pytest.fixture
def coco(tmp_path):
    """A dataset config, and a function that changes the json of a split."""
    write_coco(tmp_path, 4, 2, size=(64, 48))

    def config(split='train', **options):
        return {
            'type': 'mmdet.CocoDataset',
            'data_root': str(tmp_path),
            'ann_file': f'annotations/{split}.json',
            'data_prefix': {'img': f'{split}/'},
            'metainfo': {'classes': CLASSES, 'palette': PALETTE},
            'pipeline': LOAD,
            'serialize_data': False,
            **options,
        }

    def edit(change, split='train'):
        path = tmp_path / f'annotations/{split}.json'
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return path

    return SimpleNamespace(config=config, edit=edit, root=tmp_path)


def set_all(**values):
    return lambda content: [one.update(values) for one in content['annotations']]


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda c: c.update(annotations=[]), 'Boxes there: none'),
        (lambda c: c.pop('annotations'), 'Boxes there: none'),
        (set_all(iscrowd=1), r'\d+ are crowd, ignored or difficult'),
        (set_all(bbox=[0.1, 0.1, 0.4, 0.5]), r'\d+ have no area'),
        (set_all(ignore=1), 'Boxes there'),
        (set_all(image_id='0'), 'Boxes there: none'),
    ],
)
@pytest.mark.parametrize('options', [{}, {'test_mode': True}])
def test_no_object_in_the_whole_set(coco, change, words, options):
    coco.edit(change)
    reports = protection.protect(DATASETS.build(coco.config(**options)))
    with pytest.raises(protection.DataError, match=f'no object in the whole dataset .*{words}'):
        protection.check_objects(reports)


def test_a_part_without_objects_is_fine(coco):
    coco.edit(lambda c: c.update(annotations=[]))
    both = {'type': 'ConcatDataset', 'datasets': [coco.config(), coco.config('val')]}
    protection.check_objects(protection.protect(DATASETS.build(both)))


def test_difficult_objects_only(tmp_path):
    from mmkd.datasets.synthetic import write_voc

    write_voc(tmp_path, 3, 1, size=(64, 48))
    for path in tmp_path.glob('VOC2007/Annotations/*.xml'):
        text = path.read_text().replace('<difficult>0', '<difficult>1')
        path.write_text(text)
    config = {
        'type': 'mmdet.VOCDataset',
        'data_root': str(tmp_path),
        'ann_file': 'VOC2007/ImageSets/Main/train.txt',
        'data_prefix': {'sub_data_root': 'VOC2007/'},
        'metainfo': {'classes': CLASSES, 'palette': PALETTE},
        'pipeline': LOAD,
    }
    reports = protection.protect(DATASETS.build(config))
    with pytest.raises(protection.DataError, match=r'\d+ are crowd, ignored or difficult'):
        protection.check_objects(reports)


def test_objects_without_the_mask_that_is_loaded(coco):
    coco.edit(lambda c: c['annotations'][5].pop('segmentation'))
    load = [LOAD[0], {**LOAD[1], 'with_mask': True}]
    with pytest.raises(
        protection.DataError, match=r'1 annotation\(s\) cannot be used: object \d.*no mask'
    ):
        protection.protect(DATASETS.build(coco.config(pipeline=load)))


@pytest.mark.parametrize(
    ('mask', 'words'),
    [
        ('abc', "has the mask 'abc', where polygons"),
        ([1, 2, 3, 4, 5, 6], r'has the mask \[1, 2'),
        ({'size': [8, 8], 'counts': [64]}, r'has a mask of size \[8, 8\].*its image \[48, 64\]'),
    ],
)
def test_masks_that_cannot_be_drawn(coco, mask, words):
    coco.edit(lambda c: c['annotations'][5].update(segmentation=mask))
    load = [LOAD[0], {**LOAD[1], 'with_mask': True}]
    with pytest.raises(protection.DataError, match=words):
        protection.protect(DATASETS.build(coco.config(pipeline=load)))
    protection.protect(DATASETS.build(coco.config()))  # without masks it does not matter


def test_labels_that_are_no_class(coco):
    """Two categories of one name make more labels than classes."""
    coco.edit(lambda c: c['categories'][0].update(name='ring'))
    with pytest.raises(protection.DataError, match='has label 4, but there are 4 classes'):
        protection.protect(DATASETS.build(coco.config(metainfo={'classes': CLASSES[1:]})))


def test_boxes_of_another_layout_are_reported(coco):
    def corners(content):
        for one in content['annotations']:
            x, y, width, height = one['bbox']
            one['bbox'] = [x, y, x + width, y + height]

    coco.edit(corners)
    (report,) = protection.protect(DATASETS.build(coco.config()))
    assert 'boxes reach beyond their image' in str(report)
    assert 'beyond' not in str(protection.audit(DATASETS.build(coco.config('val')))[0])


class Labelled(BaseDataset):
    METAINFO = {'classes': ('cat', 'dog')}  # noqa: RUF012

    def load_data_list(self):
        return [{'gt_label': 0}, {'gt_label': 2}]


def test_labels_of_images_that_are_no_class():
    with pytest.raises(protection.DataError, match='has label 2, but there are 2 classes'):
        protection.audit(Labelled())


# Metrics ----------------------------------------------------------------------------------------


def evaluator(path):
    from mmdet.evaluation import CocoMetric

    metric = CocoMetric(ann_file=str(path))
    metric.dataset_meta = {'classes': CLASSES}
    return SimpleNamespace(metrics=[metric])


def test_metric_with_the_file_of_other_images(coco):
    dataset = DATASETS.build(coco.config('val', test_mode=True))
    reports = protection.protect(dataset)
    check_metrics('val_evaluator', evaluator(coco.root / 'annotations/val.json'), dataset, reports)
    path = coco.edit(lambda c: [one.update(id=one['id'] + 100) for one in c['images']], 'val')
    with pytest.raises(
        protection.DataError, match=r'ann_file of CocoMetric has no image with the id 0'
    ):
        check_metrics('val_evaluator', evaluator(path), dataset, reports)


def test_metric_with_the_ids_of_another_split_is_reported(coco, log):
    dataset = DATASETS.build(coco.config('val', test_mode=True))
    reports = protection.protect(dataset)
    path = coco.edit(lambda c: c['images'][1].update(file_name='x.jpg'), 'val')
    check_metrics('val_evaluator', evaluator(path), dataset, reports)
    assert 'calls the image 1 x.jpg, but the data' in log.text


def test_metric_with_other_category_ids(coco):
    dataset = DATASETS.build(coco.config('val', test_mode=True))
    reports = protection.protect(dataset)
    path = coco.edit(lambda c: c['categories'].reverse(), 'val')
    with pytest.raises(protection.DataError, match='ann_file of CocoMetric has the category ids'):
        check_metrics('val_evaluator', evaluator(path), dataset, reports)


# The Runner -------------------------------------------------------------------------------------


def test_the_runner_names_the_entry(coco):
    path = coco.edit(lambda c: c['annotations'][2].update(bbox=[1, 2, 3]))
    config = {
        'dataset': coco.config(),
        'sampler': {'type': 'DefaultSampler'},
        'batch_size': 1,
        'num_workers': 0,
    }
    with pytest.raises(protection.DataError, match=rf'{path}: annotations\[2\] .*bbox \[1, 2, 3\]'):
        Runner.build_dataloader(config)


def test_an_error_in_a_worker_is_its_sentence(coco):
    dataset = DATASETS.build(coco.config(test_mode=True))
    protection.tolerate(dataset)
    path = coco.root / 'train/000002.jpg'
    path.unlink()
    loader = DataLoader(dataset, num_workers=1, collate_fn=list)
    with pytest.raises(protection.DataError) as caught:
        list(loader)
    text = describe(caught.value)
    assert text.startswith('dataset CocoDataset') and '000002.jpg: no such file' in text
    assert 'Caught' not in text


def test_an_evaluation_without_test_mode_is_reported(coco, log):
    config = {'dataset': coco.config('val'), 'sampler': {'type': 'DefaultSampler'}}
    loader = Runner.build_dataloader({**config, 'batch_size': 1, 'num_workers': 0})
    runner = SimpleNamespace(test_dataloader=loader, test_evaluator=SimpleNamespace(metrics=[]))
    DataGuardHook().before_test(runner)
    assert 'test_dataloader: CocoDataset has no test_mode=True' in log.text


def test_images_without_labels_need_no_object(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((8, 8, 3), np.uint8))
    images = dict(type='mmkd.ImageFolder', data_root=str(tmp_path))
    images['pipeline'] = [*LOAD, dict(type='mmdet.PackDetInputs')]

    def start(dataset):
        train = DataLoader(dataset, sampler=DefaultSampler(dataset, seed=0))
        runner = SimpleNamespace(train_dataloader=train, train_loop=None, val_loop=None)
        DataGuardHook().before_train(runner)

    with pytest.raises(protection.DataError, match='no object in the whole dataset ImageFolder'):
        start(DATASETS.build(images))
    start(Unlabelled(images))
