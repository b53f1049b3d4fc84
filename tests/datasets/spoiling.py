"""Ways to spoil the datasets of conftest."""

import json

from mmengine.registry import DATASETS

from mmkd.datasets import protection


def build(config):
    with protection.building():
        return DATASETS.build(config)


def edit(root, change):
    path = root / 'annotations/train.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return str(path)


def put(section, position, **values):
    """A change of one entry; None as a value of ``drop`` takes a key away."""

    def change(content):
        entry = content[section][position]
        for key in values.pop('drop', ()):
            del entry[key]
        entry.update(values)

    return change


def double(section, **values):
    return lambda content: content[section].append({**content[section][0], **values})


def spoil_images(root):
    """Image 1 is truncated, 2 is text, 3 is empty, 4 is gone; 0 and 5 stay good."""
    images = sorted((root / 'train').iterdir())
    images[1].write_bytes(images[1].read_bytes()[:400])
    images[2].write_text('not an image')
    images[3].write_bytes(b'')
    images[4].unlink()
