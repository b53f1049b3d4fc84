"""Why a dataset cannot be built: the file and the entry, whatever loader failed."""

import pytest
from spoiling import build, edit, put

from mmkd.datasets import protection


@pytest.mark.parametrize('serialize', [True, False])
def test_nothing_left_by_the_filter(data, serialize):
    root, config = data('coco')
    path = edit(root, lambda c: c.update(annotations=[]))
    config = {**config, 'serialize_data': serialize, 'filter_cfg': {'filter_empty_gt': True}}
    words = f'filter_cfg=.*filter_empty_gt.* none of the 6 images of {path}; 0 of them have objects'
    with pytest.raises(ValueError, match=words if serialize else 'is empty'):
        protection.audit(build(config))


def test_a_list_without_images(data):
    root, config = data('coco')
    path = edit(root, lambda c: c.update(images=[], annotations=[]))
    with pytest.raises(protection.DataError, match=f'{path} lists no image'):
        build({**config, 'serialize_data': True})


def test_wrapped_datasets_are_found(data):
    root, config = data('coco')
    path = edit(root, put('annotations', 2, bbox=None))
    wrapped = {'type': 'RepeatDataset', 'times': 2, 'dataset': config}
    with pytest.raises(protection.DataError, match=f'{path}: annotations'):
        build({'type': 'ConcatDataset', 'datasets': [wrapped, wrapped]})


def test_another_loaders_error_names_its_file(tmp_path):
    path = tmp_path / 'list.json'
    path.write_text('{"data_list": []}')
    config = {'type': 'mmdet.BaseDetDataset', 'ann_file': str(path)}
    with pytest.raises(
        protection.DataError, match=f'BaseDetDataset: .*{path}|cannot be loaded: Value'
    ):
        build(config)


def test_package_of_a_storage_is_named(data):
    _, config = data('coco')
    config = {**config, 'backend_args': {'backend': 'petrel'}}
    with pytest.raises(ImportError, match=r'CocoDataset .*train\.json: to load it.*petrel_client'):
        build(config)
