"""Files that would run a program, delete or exhaust something, if anything but data were read.

Each function of ``REFUSED`` and ``HARMLESS`` writes one file; what it would run creates ``marker``.
"""

import copy
import functools
import pickle
import struct
import tempfile
import zipfile

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from runner_toys import make
from torch import nn

from mmkd.checkpoint import read_checkpoint

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
DTYPE_STATE = (3, '|', None, None, None, -1, -1, 63)


class Call:
    """Becomes ``function(*arguments)`` when it is unpickled, and then takes ``state``."""

    def __init__(self, function, *arguments, state=None):
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.made


class Module(nn.Linear):
    """A whole model that runs something when it is unpickled."""

    def __init__(self, code):
        super().__init__(1, 1)
        self.code = code

    def __setstate__(self, state):
        exec(state['code'])
        super().__setstate__(state)


def code(marker):
    return f'open({str(marker)!r}, "w").close()'


@functools.cache
def finished():
    """What the toy run saves after its first epoch."""
    with tempfile.TemporaryDirectory() as folder:
        make(folder, train_cfg=dict(by_epoch=True, max_epochs=1)).train()
        return read_checkpoint(f'{folder}/epoch_1.pth')


def contents(extra, **info):
    """That checkpoint with something else in ``meta`` and in what it says of the run."""
    checkpoint = copy.deepcopy(finished())
    checkpoint['meta'].update(extra=extra)
    checkpoint['message_hub']['runtime_info'].update(info)
    checkpoint['message_hub']['resumed_keys'].update(dict.fromkeys(info, True))
    return checkpoint


def zipped(path, pickled):
    """An archive of torch with a pickle of one's own, and the record of one tensor."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', pickled)
        archive.writestr('archive/version', '3\n')
        archive.writestr('archive/data/0', bytes(16))


def in_a_row(path, *parts):
    """torch's older format: pickles one after the other, given as objects or as bytes."""
    pickles = [x if isinstance(x, bytes) else pickle.dumps(x, 2) for x in (MAGIC, *parts)]
    path.write_bytes(b''.join(pickles))


def legacy(path, pickled):
    in_a_row(path, VERSION, {}, pickled, [])


def old_words(marker):
    """Protocol 0, with INST: builtins.eval('…')."""
    return b"(S'%s'\nibuiltins\neval\n." % code(marker).encode()


def called_result(marker):
    """What getattr gave is called: no pickler writes that."""
    text = code(marker).encode()
    return (
        b'\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\nX\x08\x00\x00\x00builtins\x85R'
        b'X\x04\x00\x00\x00exec\x86RX' + struct.pack('<I', len(text)) + text + b'\x85R.'
    )


def run_by(marker):
    """What a pickle of Python's own would run: the shortest of them."""
    return Call(eval, code(marker))


def saved(make, **options):
    """A file of torch.save that holds ``make(marker)`` beside a checkpoint's own things."""
    return lambda path, marker: torch.save(contents(make(marker)), path, **options)


REFUSED = {
    'zip': saved(run_by),
    'old format': saved(run_by, _use_new_zipfile_serialization=False),
    'zip, protocol 0': lambda path, mark: zipped(path, old_words(mark)),
    'old format, protocol 0': lambda path, mark: legacy(path, old_words(mark)),
    'zip, protocol 4': lambda path, mark: zipped(path, pickle.dumps(run_by(mark), 4)),
    'old format, protocol 4': lambda path, mark: legacy(path, pickle.dumps(run_by(mark), 4)),
    'list of keys': lambda path, mark: in_a_row(path, VERSION, {}, {'w': 1}, run_by(mark)),
    'machine': lambda path, mark: in_a_row(path, VERSION, run_by(mark), {'w': 1}, []),
    'pickle': lambda path, mark: path.write_bytes(pickle.dumps(run_by(mark), 2)),
    'pickle, protocol 0': lambda path, mark: path.write_bytes(old_words(mark)),
    'getattr': lambda path, mark: zipped(path, called_result(mark)),
    'getattr, old format': lambda path, mark: legacy(path, called_result(mark)),
    'method': saved(lambda mark: Call(getattr, HistoryBuffer, '__init__')),
    'lazy': saved(lambda mark: Call(map, eval, [code(mark)])),
    'array of objects': saved(lambda mark: np.array([run_by(mark), None], dtype=object)),
    'numpy': saved(lambda mark: Call(np.testing.rundocs, str(mark))),
    'forged dtype': saved(lambda mark: Call(np.dtype, 'O', False, True, state=DTYPE_STATE)),
    'module': saved(lambda mark: Module(code(mark))),
    'subclass of a tensor': saved(
        lambda mark: Call(torch._tensor._rebuild_from_type_v2, eval, str, (code(mark),), {})
    ),
    'TorchScript': lambda path, mark: torch.jit.script(nn.Linear(1, 1)).save(str(path)),
}


def text(path, marker):
    """Config texts, under every name that a checkpoint has had for them, are programs."""
    program = f'import os\n{code(marker)}\n'
    checkpoint = contents(None, cfg=program)
    checkpoint['meta'].update(config=program, cfg=program, mmengine_version='0.10')
    torch.save(checkpoint, path)


def paths(path, marker):
    """Places that belong to somebody else."""
    outside = str(marker.parent / 'outside')
    places = dict(best_ckpt=outside, last_ckpt=outside, keep_ckpt_ids=['../outside', 0])
    places |= dict(work_dir=outside, log_dir=outside, experiment_name=outside, best_score=-1.0)
    checkpoint = contents(None, **places)
    checkpoint['meta'].update(experiment_name=outside, hook_msgs=dict(last_ckpt=outside))
    torch.save(checkpoint, path)


HARMLESS = {'config text': text, 'paths': paths}
