"""Boxes as labels: thresholds are checked before a teacher is asked, and files name their maker."""

import json
from pathlib import Path

import pytest
from view_toys import BOX, SIZE, picture

from mmkd.makers.box_labels import BoxLabels


def test_thresholds_and_owner(tmp_path):
    found = {}
    for name, scores in (('a', [0.9, 0.6]), ('b', [0.3])):
        file, many = picture(tmp_path / f'{name}.png'), [BOX] * len(scores)
        found[file] = dict(size=SIZE, boxes=many, scores=scores, labels=[0, 1][: len(scores)])
    labelled = dict(images=[{}], annotations=[dict(category_id=4)] * 1)
    labelled['categories'] = [dict(id=4, name='y'), dict(id=9, name='x')]
    (tmp_path / 'labelled.json').write_text(json.dumps(labelled))
    labels = BoxLabels('Any', 'xy', 'match', str(tmp_path / 'labelled.json'))
    product = labels.write(str(tmp_path), str(tmp_path), found, dict(made=1))
    held = json.loads(Path(product.checkpoint).read_text())
    assert [one['category_id'] for one in held['annotations']] == [9, 4], '2 boxes of 2 images'
    assert held['info']['threshold'] == dict(x=0.6, y=0.6) and held['info']['made'] == 1
    assert 'mmkd make Any' in (tmp_path / 'dataset.py').read_text()
    with pytest.raises(ValueError, match='Any: no object of 2 images .* scores are 0.9, 0.6, 0.3'):
        BoxLabels('Any', 'xy', 1.0).write(str(tmp_path), str(tmp_path), found, {})
    with pytest.raises(ValueError, match='Any: 1 images cannot be read'):
        BoxLabels('Any', 'xy', 0.5).write(
            str(tmp_path), str(tmp_path), found, {}, damaged=['c.png is damaged.']
        )
    with pytest.raises(ValueError, match='Any: threshold has no number for y'):
        BoxLabels('Any', 'xy', dict(x=0.5))
    with pytest.raises(ValueError, match='ignore=0.6 is not below the threshold 0.6'):
        BoxLabels('Any', 'xy', dict(x=0.5, y=0.6), ignore=0.6)
