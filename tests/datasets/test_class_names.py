"""Class names that annotation files use, found without loading the files."""

import json
import time

from mmkd.datasets._class_names import coco_categories, voc_names


def test_categories_are_found_anywhere_in_a_file(tmp_path):
    categories = [{'id': 7, 'name': 'Grün', 'supercategory': 'categories'}]
    rest = {'images': [{'file_name': '"categories"'}] * 3, 'annotations': []}
    for order in ({'categories': categories, **rest}, {**rest, 'categories': categories}):
        path = tmp_path / 'a.json'
        path.write_text(json.dumps(order, ensure_ascii=False))
        assert coco_categories(str(path)) == {7: 'Grün'}
    path.write_text(json.dumps(rest))
    assert coco_categories(str(path)) is None


def test_names_of_body_parts_are_not_classes_and_time_is_kept(tmp_path):
    part = '<part><name>head</name></part>'
    text = f'<annotation><object><name>person</name>{part}</object></annotation>'
    paths = []
    for index in range(3):
        paths.append(str(tmp_path / f'{index}.xml'))
        (tmp_path / f'{index}.xml').write_text(text)
    names = voc_names([*paths, str(tmp_path / 'absent.xml')], time.monotonic() + 9)
    assert (names.counts, names.files, names.complete) == ({'person': 3}, 3, True)
    names = voc_names(paths, time.monotonic() - 1)
    assert (names.files, names.complete) == (1, False)
