"""With which weights a run starts, and that a resumed one keeps its own."""

import pytest
import torch
from runner_toys import Net, log_of, make
from torch import nn

from mmkd.engine.start_hook import StartHook


class Learner(Net):
    """A net with two objectives that learn."""

    def __init__(self, first=2):
        super().__init__()
        self.objectives = nn.ModuleDict(dict(a=nn.Linear(first, 2), b=nn.Linear(2, 3)))


def file(path, *models, **state):
    for model in models:
        state |= model.state_dict()
    torch.save(dict(state_dict=state, meta={}), path)
    return str(path)


def started(folder, model, **files):
    runner = make(folder, model=model, log_level='INFO')
    StartHook(**files).before_train(runner)
    return runner.model, log_of(runner)


def test_all_of_the_student_and_what_fits_of_the_objectives(tmp_path):
    other = Learner()
    for parameter in other.parameters():
        nn.init.constant_(parameter, 3)
    path = file(tmp_path / 'a.pth', other, **{'objectives.old.weight': torch.ones(1)})
    model, log = started(tmp_path / 'run', Learner(first=4), objectives=path)
    assert (model.objectives['b'].weight == 3).all() and (model.objectives['b'].bias == 3).all()
    assert not (model.objectives['a'].weight == 3).any(), 'of another shape'
    assert not (model.body[0].weight == 3).any(), 'only what was asked for'
    assert 'objectives: 3 weights from' in log
    assert 'left out: old.weight, a.weight' in log
    student = Net()
    path = file(tmp_path / 'b.pth', student, **{'objectives.b.bias': torch.ones(3)})
    model, log = started(tmp_path / 'own', Net(), student=path)
    assert 'student: all 2 weights from' in log
    assert all(torch.equal(v, student.state_dict()[k]) for k, v in model.state_dict().items())


def test_what_does_not_fit_is_refused(tmp_path):
    path = file(tmp_path / 'a.pth', **{'body.0.weight': torch.ones(2, 2)})
    with pytest.raises(ValueError, match='student: .*a.pth does not fit Net'):
        started(tmp_path / 'run', Net(), student=path)
    path = file(tmp_path / 'b.pth', **{'objectives.c.weight': torch.ones(2, 2)})
    with pytest.raises(ValueError, match='objectives: none of the 1 weights of objectives in'):
        started(tmp_path / 'run', Learner(), objectives=path)


def test_a_resumed_run_keeps_its_weights(tmp_path):
    first = Net()
    nn.init.constant_(first.body[0].weight, 0.25)
    hook = dict(type='mmkd.StartHook', student=file(tmp_path / 'a.pth', first))
    make(tmp_path / 'run', custom_hooks=[hook], train_cfg=dict(by_epoch=True, max_epochs=1)).train()
    before = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=False)['state_dict']
    (tmp_path / 'a.pth').unlink()
    again = make(
        tmp_path / 'run',
        custom_hooks=[hook],
        resume=True,
        train_cfg=dict(by_epoch=True, max_epochs=1),
    )
    again.train()
    assert all(torch.equal(v, before[k]) for k, v in again.model.state_dict().items())


class Edited(Net):
    """A net whose edits learn a number beside its weights."""

    def __init__(self, *names):
        super().__init__()
        self.edits = nn.ModuleDict({name: nn.Linear(1, 1) for name in names})


def test_what_edits_learn_begins_anew_with_the_weights_of_a_plain_network(tmp_path):
    plain = file(tmp_path / 'plain.pth', Net())
    model, log = started(tmp_path / 'new', Edited('first'), student=plain)
    assert 'student: all 2 weights from' in log
    before = Edited('first')
    model, log = started(
        tmp_path / 'again', Edited('first'), student=file(tmp_path / 'a.pth', before)
    )
    assert torch.equal(model.edits['first'].weight, before.edits['first'].weight)
    with pytest.raises(ValueError, match='2 missing in the file: edits.second.weight'):
        both = Edited('first', 'second')
        started(tmp_path / 'two', both, student=file(tmp_path / 'b.pth', Edited('first')))
