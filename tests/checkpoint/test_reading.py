"""Checkpoints are read without running code in them, and every refusal is one clear sentence."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from torch import nn

from mmkd.checkpoint import CheckpointError, read_checkpoint


def _contents():
    """Everything mmengine may put into a checkpoint, optimiser and scheduler included."""
    hub = MessageHub('checkpoint_test')
    for step in range(5):
        hub.update_scalar('train/loss', 1.5 - step)
    hub.update_info('iter', 5)
    hub.update_info('score', np.float64(0.25))
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    palette = np.asfortranarray(np.arange(6).reshape(2, 3).astype('>i4'))
    meta = dict(dataset_meta=ConfigDict(classes=('a', 'b'), palette=palette), seed=3, text='ü')
    meta |= dict(flag=np.bool_(True), name=np.str_('n'), empty=np.zeros((0, 4), 'f4'))
    return dict(
        meta=meta,
        state_dict=net.state_dict(),
        message_hub=hub.state_dict(),
        optimizer=dict(optimizer.state_dict(), extra=defaultdict(list, a=[1])),
        param_schedulers=[dict(last_step=3, base_values=[0.1])],
    )


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('trust', [True, False])
def test_what_mmengine_writes_is_read(path, zipped, trust):
    wanted = _contents()
    torch.save(wanted, path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path, trust=trust)
    history = found['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.mean() == wanted['message_hub']['log_scalars']['train/loss'].mean() == -0.5
    history.update(4.0)
    assert history.current() == 4.0
    palette = found['meta']['dataset_meta']['palette']
    assert palette.tolist() == [[0, 1, 2], [3, 4, 5]] and palette.dtype == '>i4'
    assert palette.flags.writeable and palette.flags.f_contiguous
    assert found['meta']['flag'] == np.bool_(True) and found['meta']['name'] == 'n'
    assert found['meta']['empty'].shape == (0, 4)
    assert found['message_hub']['runtime_info']['score'] == 0.25
    assert found['optimizer']['extra'] == dict(a=[1])
    for key, value in wanted['state_dict'].items():
        assert torch.equal(found['state_dict'][key], value)


class Evil:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'evil, name',
    [
        (Evil(eval, '1 + 1'), 'eval'),
        (Evil(getattr, HistoryBuffer, '__init__'), 'getattr'),
        (Evil(getattr, 'text', 'upper'), 'getattr'),
        (Evil(print, 'boo'), 'print'),
        (np.array([None, 'x'], dtype=object), 'numpy'),
        (np.zeros(2, dtype=[('a', 'f4')]), 'numpy.dtype'),
        (nn.Linear(1, 1), 'torch.nn.modules.linear.Linear'),
    ],
    ids=['eval', 'method', 'getattr', 'print', 'objects', 'structured', 'module'],
)
def test_whatever_could_run_code_is_refused(path, evil, name):
    torch.save(dict(state_dict=dict(a=torch.ones(1)), meta=evil), path)
    with pytest.raises(CheckpointError, match=f'{name}.*--trust-checkpoint'):
        read_checkpoint(path)


def test_not_a_mapping(path):
    torch.save(torch.ones(2), path)
    with pytest.raises(CheckpointError, match='holds a Tensor'):
        read_checkpoint(path)
