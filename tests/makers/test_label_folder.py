"""Images of a folder, a list or a config, and the folder below which they are."""

import pytest
from view_toys import picture

from mmkd.makers.label_folder import check_stems, list_images, root_of


def test_where_images_are(tmp_path):
    (tmp_path / 'x').mkdir()
    files = [picture(tmp_path / 'x' / f'{n}.jpg') for n in 'ba']
    picture(tmp_path / 'x' / '._a.jpg')
    assert list_images('X', str(tmp_path)) == sorted(files), 'no hidden ones'
    (tmp_path / 'l.txt').write_text('\n'.join(files) + '\n\n')
    assert list_images('X', str(tmp_path / 'l.txt')) == files, 'in their order'
    (tmp_path / 'l.txt').write_text('\n'.join([*files, files[0]]), encoding='utf-8-sig')
    assert list_images('X', str(tmp_path / 'l.txt')) == files, 'each once, behind a mark of UTF-8'
    assert root_of(str(tmp_path), files) == str(tmp_path)
    assert root_of('l.txt', files) == str(tmp_path / 'x')


def test_a_list_of_bare_names(tmp_path, monkeypatch):
    """Their folder is the current one; VOC refused them, as below no folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'l.txt').write_text('a.jpg\nb.jpg\n')
    files = list_images('X', 'l.txt')
    assert root_of('l.txt', files) == '.'
    check_stems(root_of('l.txt', files), files)
    files.append('x/c.jpg')
    with pytest.raises(ValueError, match='in one folder, but there is x/c.jpg'):
        check_stems(root_of('l.txt', files), files)
