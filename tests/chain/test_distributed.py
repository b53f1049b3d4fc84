"""Two processes on a CPU: rank 0 decides, all ranks agree, and a maker runs once."""

import json
import os
import subprocess
import sys
from pathlib import Path

from chain_toys import three, weights

ROOT = Path(__file__).parents[2]
MAKER = """
import os
from pathlib import Path

from mmkd.chain import Maker, Product
from mmkd.registry import MAKERS


@MAKERS.register_module()
class Note(Maker):
    def __call__(self, given, work_dir):
        path = Path(work_dir, 'note.json')
        path.write_text(os.environ['RANK'] if not path.exists() else 'twice')
        return Product('', str(path), work_dir)
"""


def launch(folder, *words):
    return subprocess.run(
        ['bash', str(ROOT / 'tools' / 'dist_train.sh'), 'chain.py', '2', *words],
        cwd=folder,
        env=dict(
            os.environ,
            PYTHONPATH=f'{ROOT}:{folder}',
            OMP_NUM_THREADS='1',
            PORT=str(29900 + os.getpid() % 400),
            PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        ),
        capture_output=True,
        text=True,
    )


def test_a_chain_in_two_processes(paths, tmp_path):
    stages = three(paths)
    stages['assistant']['options'] = {'train_cfg.max_epochs': 1}
    note = dict(note=dict(make=dict(type='mmkd.Note'), teacher='teacher'))
    (tmp_path / 'note.py').write_text(MAKER)
    text = f"custom_imports = dict(imports=['note'])\nstages = {stages | note}\n"
    (tmp_path / 'chain.py').write_text(text)  # Config.dump sorts what it writes
    done = launch(tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    work = tmp_path / 'work_dirs' / 'chain'
    assert (work / 'note' / 'note.json').read_text() == '0', 'by rank 0 alone, once'
    assert done.stdout.count('stage 1/4 teacher: started') == 1, 'one rank speaks'
    marker = json.loads((work / 'student' / 'done.json').read_text())
    before = weights(work / 'student' / 'epoch_2.pth')

    (work / 'student' / 'done.json').unlink()
    done = launch(tmp_path, '--only', 'student')
    assert done.returncode == 0, done.stderr[-4000:]
    assert 'stage 3/4 student: resumed from epoch_2.pth; teacher = assistant:last' in done.stdout
    again = json.loads((work / 'student' / 'done.json').read_text())
    assert again['product'] == marker['product'] and again['inputs'] == marker['inputs']
    assert weights(work / 'student' / 'epoch_2.pth').keys() == before.keys()
