"""What stands in for numpy, and what it does not do."""

import pickle

import numpy as np
import pytest
import torch

from mmkd.checkpoint import CheckpointError, read_checkpoint, settling, stand_ins


@pytest.mark.parametrize('old', ['numpy.core.multiarray', 'numpy._core.multiarray'])
def test_both_names_of_numpy(path, old):
    """NumPy 2 renamed the module that its pickles mention; the file may be of either time."""
    core = np.ones(2).__reduce__()[0].__module__
    text = pickle.dumps(dict(a=np.ones(2), b=np.float32(3)), protocol=2)
    text = text.replace(core.encode(), old.encode())
    with (
        torch.serialization.safe_globals([(v, k) for k, v in stand_ins.STAND_INS.items()]),
        open(path, 'wb+') as file,
    ):
        file.write(text)
        file.seek(0)
        loaded = torch._weights_only_unpickler.load(file)
    loaded = settling.settle(loaded, 10**6)
    assert loaded['a'].tolist() == [1, 1] and loaded['b'] == 3


def test_memory_cannot_be_forged(path):
    """NumPy lets a pickle relabel object pointers as plain bytes; our stand-in does not."""

    class Forged:
        def __reduce__(self):
            return np.dtype, ('O', False, True), (3, '|', None, None, None, -1, -1, 0)

    class Array:
        def __reduce__(self):
            start = np.zeros(1).__reduce__()
            return start[0], start[1], (1, (1,), Forged(), False, b'\x08' * 8)

    torch.save(dict(a=Array()), path)
    with pytest.raises(CheckpointError, match='numpy.dtype'):
        read_checkpoint(path)
