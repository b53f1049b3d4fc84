"""Torch on one thread, one default scope for every test, and mmengine without its pauses."""

import gc
import os
import signal
from types import SimpleNamespace

os.environ['MMKD_CACHE'] = 'off'
os.environ['CUDA_VISIBLE_DEVICES'] = ''  # tests are for the CPU, `make gpu-check` is for GPUs

import cv2
import pytest
import torch
from mmengine.dataset import base_dataset
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmengine.runner import loops
from mmengine.runner import runner as mm_runner
from yapf.yapflib import yapf_api

import mmkd  # noqa: F401  (before mmdet and mmseg: provides operators that mmcv may lack)

torch.set_num_threads(1)
cv2.setNumThreads(0)  # a process that is forked beside its threads may wait for them for ever
# mmengine lays out the config anew for each checkpoint, a second each, sleeps between epochs, asks
# compilers for their version in every run, and looks for garbage after each data set.
yapf_api.FormatCode = lambda text, **options: (text, False)
loops.time = SimpleNamespace(sleep=lambda seconds: None)
mm_runner.collect_env = dict
base_dataset.gc = SimpleNamespace(collect=int)


def pytest_collection_finish() -> None:
    """Modules and tests stay for good: garbage is then looked for in what tests make alone."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_over():
    """No scope, training progress or signal handler of one test is seen by the next.

    A command that was stopped ignores SIGTERM, and so would the processes of pools of later tests.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for kind in (DefaultScope, MessageHub):
        kind._instance_dict.clear()


@pytest.fixture
def running():
    """``running(iteration, total)`` makes mmengine's running loop say so."""

    def at(iteration: int, total: int = 100) -> None:
        hub = MessageHub.get_current_instance()
        hub.update_info('iter', iteration)
        hub.update_info('max_iters', total)

    return at


@pytest.fixture
def log(caplog):
    """What mmengine logs, which does not propagate to pytest by itself."""
    import logging

    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)
