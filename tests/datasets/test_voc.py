"""VOC lists and XML files that no loader can work with."""

import re

import pytest
from spoiling import build

from mmkd.datasets import protection


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('<bndbox>', '<box>', r'object\[0\] \(\w+\) has no bndbox'),
        ('<xmin>', '<xmin>a', r"has xmin 'a\d+', where a number"),
        ('<xmin>', '<xmin>nan</xmin><xmin>', "has xmin 'nan'"),
        ('<ymax>', '<low>', 'has ymax None'),
        ('<name>', '<title>', r'object\[0\] \(None\) has no name'),
        ('<width>', '<width>w', "size has width 'w64'"),
        ('<difficult>', '<difficult>no', "has difficult 'no0'"),
    ],
)
def test_xml_entry_is_named(data, old, new, words):
    root, config = data('voc')
    path = root / 'VOC2007/Annotations/000004.xml'
    end = old.replace('<', '</'), '</' + new.strip('<').split('>')[0] + '>'
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new).replace(*end))
    with pytest.raises(protection.DataError, match=f'annotation file {path}: .*{words}'):
        build(config)


@pytest.mark.parametrize('content', [None, b'no image'])
def test_xml_without_a_size_needs_the_image(data, content):
    root, config = data('voc')
    path = root / 'VOC2007/Annotations/000004.xml'
    path.write_text(re.sub('<size>.*</size>', '', path.read_text(), flags=re.DOTALL))
    assert build(config).get_data_info(4)['width'] == 64
    image = root / 'VOC2007/JPEGImages/000004.jpg'
    image.unlink()
    if content:
        image.write_bytes(content)
    with pytest.raises(protection.DataError, match=f'{path}: it has no size, which image {image}'):
        build(config)


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('', 'has an empty line, whose annotation file'),
        ('000009', "the entry '000009'.*no such file"),
        ('000001 ', r"the entry '000001 '.*\(there is 000001.xml\)"),
        ('\ufeff000001', 'without a byte order mark'),
        ('000001 -1', "the entry '000001 -1'.*one name a line"),
    ],
)
def test_list_entry_without_a_file(data, line, words):
    root, config = data('voc')
    path = root / 'VOC2007/ImageSets/Main/train.txt'
    path.write_text(path.read_text() + f'{line}\n')
    with pytest.raises(FileNotFoundError, match=words):
        protection.check_paths(config)


def test_a_list_that_is_no_text(data):
    root, config = data('voc')
    (root / 'VOC2007/ImageSets/Main/train.txt').write_bytes(b'0001\xff')
    with pytest.raises(
        protection.DataError, match=r'train\.txt: it is no text in UTF-8 \(byte 4\)'
    ):
        protection.check_paths(config)


def test_windows_line_ends_and_repeated_entries(data, log):
    root, config = data('voc')
    path = root / 'VOC2007/ImageSets/Main/train.txt'
    path.write_bytes(b'000001\r\n000002\r\n000001\r\n')
    protection.check_paths(config)
    (report,) = protection.audit(build(config))
    assert report.images == 3 and 'entries repeat an image' in log.text and '000001' in log.text
