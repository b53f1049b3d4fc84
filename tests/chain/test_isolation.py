"""What a run leaves behind in its process is taken back."""

import os
import random

import cv2
import numpy as np
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from mmkd.chain.isolation import isolated


def state():
    cudnn = torch.backends.cudnn
    return (
        cudnn.benchmark,
        cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        cv2.getNumThreads(),
        os.environ.get('OMP_NUM_THREADS'),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        {kind: set(kind._instance_dict) for kind in (DefaultScope, MessageHub, MMLogger)},
    )


def test_everything_is_as_before(tmp_path):
    MessageHub.get_instance('kept')
    before = state()
    try:
        with isolated():
            torch.backends.cudnn.benchmark = not before[0]
            torch.backends.cudnn.deterministic = not before[1]
            torch.use_deterministic_algorithms(not before[2])
            torch.set_num_threads(before[3] + 1)
            cv2.setNumThreads(before[4] + 1)
            os.environ['OMP_NUM_THREADS'] = '7'
            torch.rand(3), random.random(), np.random.rand()
            DefaultScope.get_instance('run', scope_name='mmdet')
            MessageHub.get_instance('run')
            logger = MMLogger.get_instance('run', log_file=str(tmp_path / 'run.log'))
            file = next(h for h in logger.handlers if hasattr(h, 'baseFilename'))
            assert file.stream is not None
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert state() == before
    assert file.stream is None, 'closed'
    assert MessageHub.get_current_instance().instance_name == 'kept'


def test_a_visualizer_of_another_package_is_a_new_one_in_each_run(tmp_path):
    """Its class has instances of its own; the second stage's scalars went to the first's folder."""

    class Local(Visualizer):
        pass

    for name in 'ab':
        with isolated():
            backend = dict(type='LocalVisBackend')
            found = Local.get_instance('vis', vis_backends=[backend], save_dir=str(tmp_path / name))
            assert found is Local.get_current_instance()
            found.add_scalar('x', 1.0)
    assert (tmp_path / 'a' / 'vis_data').is_dir() and (tmp_path / 'b' / 'vis_data').is_dir()
