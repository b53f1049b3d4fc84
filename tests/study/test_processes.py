"""Who runs when, and what becomes of the others."""

import os
from types import SimpleNamespace

import pytest
from chain_toys import in_child
from study_toys import Ended

from mmkd.study import processes
from mmkd.study.processes import Task, environment, last_error, run_all


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(processes, 'PAUSE', 0)


def task(name, *needs):
    return Task(name, ('w', 'train', name), f'/nowhere/{name}', needs)


class Slow(Ended):
    """Ends at the second look."""

    looks = 0

    @property
    def exitcode(self):
        self.looks += 1
        return None if self.looks < 2 else self.code

    def __init__(self, code=0):
        self.code, self.ended = code, []

    def terminate(self):
        self.ended.append('terminate')

    def join(self):
        self.ended.append('join')


def test_order_slots_and_failures():
    seen, said = [], []
    codes = dict(b=1)

    def start(one, slot, at_once):
        seen.append((one.name, slot))
        return Slow(codes.get(one.name, 0))

    tasks = [task('a', 'elsewhere'), task('b'), task('c', 'b'), task('d', 'a'), task('e', 'c')]
    failed = run_all(tasks, 2, start, said.append)
    assert seen == [('a', 0), ('b', 1), ('d', 0)]
    again = run_all(tasks[2:3], 2, start, said.append, before=failed)
    assert again == {'c': 'b failed before'} and len(seen) == 3
    assert failed == {
        'b': 'exit status 1, without a message',
        'c': 'b failed before',
        'e': 'c failed before',
    }
    assert said[0] == 'a: started (0 of 5 are over)' and 'b: failed: exit status 1' in said[3]


def test_one_at_a_time():
    seen = []
    run_all([task('a'), task('b')], 1, lambda one, *at: seen.append(at) or Ended(), print)
    assert seen == [(0, 1), (0, 1)]


def test_one_task_has_all_cores():
    seen = []
    run_all([task('a')], 4, lambda *given: seen.append(given[1:]) or Ended(), print, seen.append)
    assert seen == [(0, 1), []]


def test_ctrl_c_ends_those_that_run():
    running = Slow()

    def start(one, slot, at_once):
        if one.name == 'b':
            raise KeyboardInterrupt
        return running

    with pytest.raises(KeyboardInterrupt):
        run_all([task('a'), task('b')], 2, start, print)
    assert running.ended == ['terminate', 'join']


def test_the_message_of_a_failure(tmp_path):
    log = tmp_path / 'log'
    assert last_error(str(log), -9) == 'killed by signal 9, without a message'
    log.write_text('x\n\nerror: first\n\nerror: no such file.\n(MMKD_TRACEBACK=1 …)\n')
    assert last_error(str(log), 1) == 'no such file.'
    earlier = log.stat().st_size
    assert last_error(str(log), -9, earlier) == 'killed by signal 9, without a message'
    log.write_text(log.read_text() + 'error: out of memory\n')
    assert last_error(str(log), 1, earlier) == 'out of memory'


def test_cores_and_gpus_are_shared(monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6')
    monkeypatch.setattr(os, 'cpu_count', lambda: 8)
    assert environment(1, 1) == {}
    assert environment(1, 4) == dict(OMP_NUM_THREADS='2', CUDA_VISIBLE_DEVICES='6')
    assert environment(2, 4)['CUDA_VISIBLE_DEVICES'] == '4'
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    monkeypatch.setattr(processes.torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    assert environment(1, 4) == {}


def test_a_worker_prints_into_its_log(tmp_path):
    one = Task('a', (str(tmp_path), 'train', 'a'), str(tmp_path / 'log'))
    (tmp_path / 'study.json').write_text('{"runs": {}, "amp": false}')
    assert in_child(lambda: processes._work(one, {})) == 1
    assert last_error(one.log, 1).startswith("KeyError: 'a'")


def test_a_worker_ends_when_the_study_is_killed(monkeypatch):
    seen = []
    monkeypatch.setattr(processes.os, 'kill', lambda *given: seen.append(given))
    processes._end_with(Ended())
    assert seen == [(os.getpid(), processes.signal.SIGTERM)]


def test_on_a_gpu_each_is_spawned_with_its_own(monkeypatch, tmp_path):
    """A fork of a process that has looked for GPUs cannot use them, and the import looks."""
    seen = []

    class Process(Ended):
        def __init__(self, target, args):
            super().__init__()
            assert args[1] == {'OMP_NUM_THREADS': str(max(os.cpu_count() // 2, 1)), **gpu(1)}

        def start(self):
            seen.append(os.environ['CUDA_VISIBLE_DEVICES'])

    def gpu(number):
        return {'CUDA_VISIBLE_DEVICES': str(number)}

    def context(way):
        seen.append(way)
        return SimpleNamespace(Process=Process)

    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(processes.torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(processes.torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(processes.multiprocessing, 'get_context', context)
    processes.start(Task('a', (), str(tmp_path / 'log')), 1, 2)
    assert seen == ['spawn', '1']
    assert 'CUDA_VISIBLE_DEVICES' not in os.environ and 'OMP_NUM_THREADS' not in os.environ
