"""What a checkpoint holds of teachers, and which runs it resumes."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from teacher_toys import make, train

from mmkd.engine.optimizers import JointOptimWrapper, leading

MOMENTUM = dict(type='mmkd.Momentum')
FIXED = dict(
    config=dict(
        type='mmkd.Classifier',
        backbone=dict(type='mmkd.CifarResNet', depth=8, base_channels=4),
        num_classes=3,
    ),
    checkpoint='random',
)


@pytest.fixture
def checkpoint(tmp_path):
    train(tmp_path / 'first', teacher=dict(a=MOMENTUM, b=FIXED), objectives=KD, steps=2)
    return str(tmp_path / 'first' / 'iter_2.pth')


KD = dict(a=dict(type='mmkd.KD', teacher_name='a'), b=dict(type='mmkd.KD', teacher_name='b'))


def test_only_teachers_with_a_state_are_in_the_file(checkpoint):
    held = torch.load(checkpoint, weights_only=False)
    assert set(held['teachers']) == {'a'}
    assert held['teachers']['a']['moves'] == 2


def test_a_file_that_no_run_resumes_has_none(tmp_path):
    train(tmp_path, teacher=MOMENTUM, steps=1, save=dict(save_optimizer=False))
    assert 'teachers' not in torch.load(tmp_path / 'iter_1.pth', weights_only=False)


def test_without_moving_teachers_a_checkpoint_is_as_before(tmp_path):
    train(tmp_path, teacher=FIXED, steps=1)
    assert 'teachers' not in torch.load(tmp_path / 'iter_1.pth', weights_only=False)


@pytest.mark.parametrize(
    ('teacher', 'objectives', 'words'),
    [
        (FIXED, None, 'a in the checkpoint and none in this run'),
        (dict(a=MOMENTUM, b=MOMENTUM), KD, 'a in the checkpoint and a, b in this run'),
    ],
)
def test_a_run_with_other_teachers_is_not_resumed(tmp_path, checkpoint, teacher, objectives, words):
    runner = make(
        tmp_path / 'other',
        teacher=teacher,
        objectives=objectives,
        resume=True,
        load_from=checkpoint,
    )
    with pytest.raises(ValueError, match=f'cannot resume: teachers .*{words}'):
        runner.train()


def test_load_from_ignores_teachers(tmp_path, checkpoint):
    runner = train(tmp_path / 'other', teacher=FIXED, load_from=checkpoint, steps=1)
    assert runner.watch.losses


def test_a_teacher_of_another_student_is_named(tmp_path, checkpoint):
    held = torch.load(checkpoint, weights_only=False)
    held['teachers']['a']['weights']['head.fc.weight'] = torch.zeros(5, 5)
    torch.save(held, tmp_path / 'bad.pth')
    runner = make(
        tmp_path / 'other',
        teacher=dict(a=MOMENTUM, b=FIXED),
        objectives=KD,
        resume=True,
        load_from=str(tmp_path / 'bad.pth'),
    )
    with pytest.raises(
        ValueError, match='Momentum teacher in the checkpoint is of another network'
    ):
        runner.train()


def test_the_optimiser_of_several_is_the_student_s_or_the_first():
    def wrapper():
        return OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))

    one, critic = wrapper(), SimpleNamespace(optimizer=dict(type='SGD', lr=1.0), parameters=weight)
    assert leading(one) is one
    assert leading(OptimWrapperDict(one=one, other=wrapper())) is one
    assert leading(JointOptimWrapper(one, dict(critic=critic))) is one


def weight():
    return iter([torch.nn.Parameter(torch.zeros(1))])


class CpuAmp(AmpOptimWrapper):
    """mmengine's wrapper with a scaler that works without a GPU."""

    def __init__(self, optimizer):
        OptimWrapper.__init__(self, optimizer)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**127)
        self.cast_dtype = torch.bfloat16


def test_a_teacher_rests_in_steps_that_amp_leaves_out(tmp_path):
    """The first scales overflow; the student stays, and the ramp of its average does not begin."""

    def look(model):
        teacher = model.teachers['teacher']
        return teacher.moves, *(
            m.state_dict()['head.fc.weight'].clone() for m in (model.student, teacher.model)
        )

    optimizer = dict(type=CpuAmp, optimizer=dict(type='SGD', lr=0.01))
    seen = train(tmp_path, teacher=MOMENTUM, look=look, optim_wrapper=optimizer).watch.seen
    moved = [not torch.equal(seen[i][1], seen[i - 1][1]) for i in range(1, len(seen))]
    assert not moved[0] and moved[-1]
    for i, did in enumerate(moved, 1):
        assert torch.equal(seen[i][2], seen[i - 1][2]) != did
        assert seen[i][0] - seen[i - 1][0] == did
