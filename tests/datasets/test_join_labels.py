"""Objects of several sources: by file and by name, each once, with the filter behind."""

import copy
import json
import pickle

import pytest
from mmengine.dataset import BaseDataset
from PIL import Image

from mmkd.datasets import JoinLabels
from mmkd.datasets.protection import audit
from mmkd.registry import DATASETS


@DATASETS.register_module(name='JoinLabelsToy', force=True)
class Toy(BaseDataset):
    """Objects (x1, y1, x2, y2, label) by file."""

    def __init__(self, objects, **kwargs):
        self.objects = objects
        super().__init__(**kwargs)

    def load_data_list(self):
        return [
            dict(img_path=path, instances=[dict(bbox=o[:4], bbox_label=o[4]) for o in own])
            for path, own in self.objects.items()
        ]

    def filter_data(self):
        keep = (self.filter_cfg or {}).get('filter_empty_gt', False)
        return [entry for entry in self.data_list if entry['instances'] or not keep]


def toy(objects, classes, **options):
    return dict(
        type='mmkd.JoinLabelsToy', objects=objects, metainfo=dict(classes=classes), **options
    )


NEW = {'d/a.jpg': [[0, 0, 10, 10, 0]], 'd/b.jpg': [], 'd/c.jpg': []}
OLD = {'d/x/../a.jpg': [[0, 0, 10, 9, 1], [0, 20, 5, 25, 0]], 'd/b.jpg': [[1, 1, 2, 2, 1]]}
ALL = ['cat', 'dog', 'emu']


def found(dataset):
    entries = [dataset.get_data_info(i) for i in range(len(dataset))]
    return {
        e['img_path']: [(*o['bbox'], ALL[o['bbox_label']]) for o in e['instances']] for e in entries
    }


def test_objects_are_joined_by_file_and_name():
    others = [toy(OLD, ['dog', 'cat'])]
    joined = JoinLabels(toy(NEW, ['emu'], filter_cfg=dict(filter_empty_gt=True)), others, ALL)
    assert joined.metainfo['classes'] == tuple(ALL)
    assert found(joined) == {  # the cat lies over the emu, and c has nothing
        'd/a.jpg': [(0, 0, 10, 10, 'emu'), (0, 20, 5, 25, 'dog')],
        'd/b.jpg': [(1, 1, 2, 2, 'cat')],
    }
    everything = JoinLabels(toy(NEW, ['emu']), others, ALL, iou=0.95)
    assert len(found(everything)['d/a.jpg']) == 3 and found(everything)['d/c.jpg'] == []
    assert found(pickle.loads(pickle.dumps(joined))) == found(joined)


def test_several_sources_and_a_part_of_the_images():
    more = toy({'d/b.jpg': [[1, 1, 2, 2, 0], [5, 5, 9, 9, 0]]}, ['dog'])
    joined = JoinLabels(toy(NEW, ['emu'], indices=2), [toy(OLD, ['dog', 'cat']), more], ALL)
    assert list(found(joined)) == ['d/a.jpg', 'd/b.jpg']
    assert found(joined)['d/b.jpg'] == [(1, 1, 2, 2, 'cat'), (5, 5, 9, 9, 'dog')]


def test_coco_files(tmp_path):
    """Classes of a file in another order, and other ids."""
    images = [dict(id=4, file_name='a.jpg', width=50, height=50)]
    Image.new('RGB', (50, 50)).save(tmp_path / 'a.jpg')
    box = dict(image_id=4, iscrowd=0, area=25.0)
    for name, categories, boxes in (
        ('new', ['emu'], [dict(box, id=1, category_id=1, bbox=[0, 0, 5, 5])]),
        ('old', ['dog', 'cat'], [dict(box, id=1, category_id=2, bbox=[20, 20, 5, 5])]),
    ):
        listed = [dict(id=i, name=n) for i, n in enumerate(categories, 1)]
        content = dict(images=images, annotations=boxes, categories=listed)
        (tmp_path / f'{name}.json').write_text(json.dumps(content))

    def coco(name, *classes):
        return dict(
            type='mmdet.CocoDataset',
            ann_file=str(tmp_path / f'{name}.json'),
            data_prefix=dict(img=str(tmp_path)),
            metainfo=dict(classes=classes),
        )

    joined = JoinLabels(coco('new', 'emu'), [coco('old', 'cat', 'dog')], ALL)
    instances = joined.get_data_info(0)['instances']
    labels = [(o['bbox'], ALL[o['bbox_label']]) for o in instances]
    assert labels == [([0, 0, 5, 5], 'emu'), ([20, 20, 25, 25], 'cat')]
    (report,) = audit(joined)
    assert report.clean and joined.numbered_as == tuple(ALL)


# --------------------------------------------------------------------------------- bad input


def test_sources_that_do_not_fit():
    old = toy(OLD, ['dog', 'cat'])
    with pytest.raises(ValueError, match='none of the 1 images .* of the same folder'):
        JoinLabels(toy(NEW, ['emu']), [toy({'e.jpg': []}, ['dog'])], ALL)
    with pytest.raises(ValueError, match='must name all classes of every source'):
        JoinLabels(toy(NEW, ['emu']), [copy.deepcopy(old)], ['cat', 'emu'])
    with pytest.raises(ValueError, match='but one has none'):
        JoinLabels(toy(NEW, []), [copy.deepcopy(old)], ALL)
    with pytest.raises(TypeError, match='without wrappers, found a RepeatDataset'):
        JoinLabels(dict(type='RepeatDataset', times=2, dataset=toy(NEW, ['emu'])), [], ALL)
    with pytest.raises(ValueError, match='iou must be'):
        JoinLabels(toy(NEW, ['emu']), [old], ALL, iou=0)
