"""Weights that a package released for a config are those of its metafile."""

import pytest

from mmkd.checkpoint import CheckpointError, weights_of
from mmkd.checkpoint.released import released_weights

METAFILE = """
Models:
  - Name: one
    Config: configs/net/one.py
    Weights: https://example.org/one-12345678.pth
  - Name: two
    Config: configs/net/two.py
"""


@pytest.mark.parametrize('name', ['metafile.yml', 'metafile.yaml'])
def test_released_weights_are_those_of_the_metafile(tmp_path, name):
    for config in ('one', 'two', 'three'):
        (tmp_path / f'{config}.py').write_text('')
    with pytest.raises(CheckpointError, match=r'has no metafile\.yml beside it'):
        released_weights(str(tmp_path / 'one.py'))
    (tmp_path / name).write_text(METAFILE)
    released_weights.cache_clear()
    assert weights_of('released', str(tmp_path / 'one.py')).endswith('/one-12345678.pth')
    for config in ('two', 'three'):
        with pytest.raises(CheckpointError, match=r'no weights were released.* for one\.py'):
            released_weights(str(tmp_path / f'{config}.py'))


def test_released_weights_of_the_installed_packages():
    for config in (
        'mmdet::faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py',
        'mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py',
    ):
        assert weights_of('released', config).startswith('https://')
