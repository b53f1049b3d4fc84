"""Ctrl-C on the command line, with workers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from recipes import distilled, python_path, recipe

ROOT = Path(__file__).parents[2]


def test_ctrl_c_ends_in_one_line_that_says_how_to_go_on(tmp_path):
    config = recipe(
        'frcnn', tmp_path / 'data', tmp_path / 'out', distilled('frcnn'), iterations=10_000
    )
    config.pop('experiment_name')
    config.train_dataloader.num_workers = 1
    config.default_hooks.checkpoint.interval = 1
    config.dump(tmp_path / 'config.py')
    process = subprocess.Popen(
        [sys.executable, str(ROOT / 'tools' / 'train.py'), 'config.py'],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=python_path(ROOT), OMP_NUM_THREADS='1'),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a job of nohup ignores it
    )
    try:
        while process.poll() is None and not (tmp_path / 'out' / 'last_checkpoint').exists():
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers, too
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    line = errors.strip().splitlines()[-1]
    assert process.returncode == 130 and 'Traceback' not in errors, errors
    assert line.startswith('Stopped. To go on from out/iter_')
    assert line.endswith(f'.pth: python {ROOT}/tools/train.py config.py --resume')
