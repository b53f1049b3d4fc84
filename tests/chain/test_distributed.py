"""Two processes on a CPU: rank 0 decides, all ranks agree, and a maker runs once."""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from chain_toys import three, weights
from launches import launch

from mmkd.commands.train import main

MAKER = """
import os
from pathlib import Path

from mmengine.dist import get_world_size

from mmkd.chain import Maker, Product
from mmkd.registry import MAKERS


@MAKERS.register_module()
class Note(Maker):
    def __call__(self, given, work_dir):
        path = Path(work_dir, 'note.json')
        own = f"{os.environ['RANK']} of {get_world_size()}"
        path.write_text(own if not path.exists() else 'twice')
        return Product('', str(path), work_dir)
"""


def command(rank, folder, *words):
    """What ``mmkd train chain.py`` prints in one process of a launch."""
    os.chdir(Path(folder).parent)
    sys.path.insert(0, os.getcwd())
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(['chain.py', '--launcher', 'pytorch', *words])
    return printed.getvalue()


def test_a_chain_in_two_processes(paths, tmp_path):
    stages = three(paths)
    stages['assistant']['options'] = {'train_cfg.max_epochs': 1}
    note = dict(note=dict(make=dict(type='mmkd.Note'), teacher='teacher'))
    (tmp_path / 'note.py').write_text(MAKER)
    text = f"custom_imports = dict(imports=['note'])\nstages = {stages | note}\n"
    (tmp_path / 'chain.py').write_text(text)  # Config.dump sorts what it writes
    printed = launch(command, 2, tmp_path / 'first')
    work = tmp_path / 'work_dirs' / 'chain'
    text = (work / 'note' / 'note.json').read_text()
    assert text == '0 of 1', 'by rank 0 alone, once, and it waits for nobody'
    assert 'stage 1/4 teacher: started' in printed[0] and not printed[1], 'one rank speaks'
    marker = json.loads((work / 'student' / 'done.json').read_text())
    before = weights(work / 'student' / 'epoch_2.pth')

    (work / 'student' / 'done.json').unlink()
    printed = launch(command, 2, tmp_path / 'second', '--only', 'student')
    assert 'stage 3/4 student: resumed from epoch_2.pth; teacher = assistant:last' in printed[0]
    again = json.loads((work / 'student' / 'done.json').read_text())
    assert again['product'] == marker['product'] and again['inputs'] == marker['inputs']
    assert weights(work / 'student' / 'epoch_2.pth').keys() == before.keys()
