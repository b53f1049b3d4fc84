"""Two processes on a CPU, through the shell script that users call."""

import os
import subprocess
import sys
from pathlib import Path

from recipes import distilled, python_path, recipe

from mmkd.testing import tiny_faster_rcnn

ROOT = Path(__file__).parents[2]


def test_dist_train_with_an_image_without_boxes_on_one_rank(tmp_path):
    model = distilled('frcnn')
    model['objectives']['cwd'] = dict(type='mmkd.CWD', weight=dict(start=2))
    model['teacher']['config'] = tiny_faster_rcnn(width=16, num_classes=5)
    config = recipe('frcnn', tmp_path / 'data', tmp_path / 'out', model, iterations=4)
    config.pop('experiment_name')
    config.log_level = 'INFO'
    dataset = config.train_dataloader.dataset
    dataset.filter_cfg = dict(filter_empty_gt=False)
    config.train_dataloader.batch_size = 1
    annotations = tmp_path / 'data' / 'annotations' / 'train.json'
    _take_boxes_off(annotations, images=range(0, 8, 2))
    config.dump(tmp_path / 'config.py')
    environment = dict(
        os.environ,
        PYTHONPATH=python_path(ROOT),
        OMP_NUM_THREADS='1',
        PORT=str(29500 + os.getpid() % 400),
        PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
    )
    done = subprocess.run(
        ['bash', str(ROOT / 'tools' / 'dist_train.sh'), 'config.py', '2'],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert 'find_unused_parameters' not in (tmp_path / 'config.py').read_text()
    assert 'kd.cwd.loss' in done.stdout + done.stderr
    assert (tmp_path / 'out' / 'iter_4.pth').is_file()


def _take_boxes_off(path, images):
    import json

    content = json.loads(path.read_text())
    kept = [a for a in content['annotations'] if a['image_id'] not in images]
    path.write_text(json.dumps(dict(content, annotations=kept)))
