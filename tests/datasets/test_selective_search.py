"""Selective search: what is made of its boxes, the file, and the message without OpenCV's contrib."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mmkd.datasets.proposals import read_proposals
from mmkd.datasets.selective_search import main, searcher, tidy, write_proposals

FOUND = np.array([[0, 0, 30, 40], [5, 5, 10, 40], [2, 3, 50, 60], [0, 0, 30, 40], [1, 0, 40, 30]])


def test_boxes_are_sorted_tidied_and_the_same_in_any_order():
    wanted = [[2, 3, 52, 63], [0, 0, 30, 40], [1, 0, 41, 30]]
    for order in (slice(None), slice(None, None, -1)):
        assert tidy(FOUND[order]).tolist() == wanted
    assert tidy(FOUND, most=1).tolist() == wanted[:1]
    assert tidy(FOUND, least=100).shape == (0, 4)


def images(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((70, 60, 3), np.uint8))
    return [folder / name for name in names]


def test_the_file_is_read_back(tmp_path):
    paths = images(tmp_path, 'train/a.png', 'val/a.png')
    assert write_proposals(paths, tmp_path / 'out.pkl', lambda image: FOUND) == 2
    found = read_proposals(tmp_path / 'out.pkl')
    assert [*found] == ['train/a.png', 'val/a.png']
    assert len(found['val/a.png']['bboxes']) == len(found['val/a.png']['scores']) == 3


def test_images_of_one_name_and_broken_ones_are_refused(tmp_path):
    paths = images(tmp_path, 'x/train/a.png', 'y/train/a.png')
    with pytest.raises(ValueError, match='another image of the name train/a.png'):
        write_proposals(paths, tmp_path / 'out.pkl', lambda image: FOUND)
    paths[0].write_bytes(b'broken')
    with pytest.raises(ValueError, match='a.png cannot be read as an image'):
        write_proposals(paths, tmp_path / 'out.pkl', lambda image: FOUND)
    assert not (tmp_path / 'out.pkl').exists()


def test_the_command_with_a_stand_in_for_opencv(tmp_path, monkeypatch, capsys):
    images(tmp_path / 'pictures', 'a.png', 'b.jpg')
    calls = []

    class Search:
        def __getattr__(self, name):
            return lambda *args: calls.append(name)

        def process(self):
            return FOUND

    segmentation = SimpleNamespace(createSelectiveSearchSegmentation=Search)
    monkeypatch.setattr(cv2, 'ximgproc', SimpleNamespace(segmentation=segmentation), raising=False)
    out = tmp_path / 'out.pkl'
    main([str(tmp_path / 'pictures'), '--out', str(out), '--most', '2'])
    assert [len(one['bboxes']) for one in read_proposals(out).values()] == [2, 2]
    assert 'proposals of 2 images' in capsys.readouterr().out
    assert calls[:2] == ['setBaseImage', 'switchToSelectiveSearchFast']


def test_without_the_contrib_package_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.delattr(cv2, 'ximgproc', raising=False)
    with pytest.raises(ImportError, match='pip install opencv-contrib-python-headless'):
        searcher()
    images(tmp_path, 'a.png')
    with pytest.raises(SystemExit):
        main([str(tmp_path), '--out', str(tmp_path / 'out.pkl')])
    assert 'mmkd.GridProposals' in capsys.readouterr().err


def test_a_folder_without_images(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), '--out', 'out.pkl'])
    assert 'no images in' in capsys.readouterr().err
