"""The watch over gradients comes with training and goes with it; no checkpoint holds NaN."""

import copy

import pytest
import torch
from finite_toys import Critic, Run, Term, broken, fine
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from runner_toys import make

from mmkd.engine.optimizers import JointOptimWrapper
from mmkd.testing import class_labels, pixels


def test_nothing_is_kept_and_nothing_is_left():
    run = Run(dict(it=Term(fine))).start()
    watch = run.hook.watch
    run.step()
    assert not watch.batches
    with torch.no_grad():
        run.model.loss(pixels(), class_labels(torch.arange(2)))
    assert not watch.batches
    assert copy.deepcopy(run.model).guard.watch is None
    run.hook.after_train(run)
    assert run.model.guard.watch is None
    run.model.objectives['it'].changes = [broken]
    run.step()  # as any Runner but ours


def joint(run, scale=None):
    critic = run.model.objectives['critic']
    rest = [p for p in run.model.parameters() if p is not critic.factor]
    optimizer = torch.optim.SGD(rest, 0.1)
    student = CpuAmp(optimizer, scale) if scale else OptimWrapper(optimizer)
    run.optim_wrapper = JointOptimWrapper(student, dict(critic=critic))
    return run.start()


class CpuAmp(AmpOptimWrapper):
    """mmengine's wrapper with a scaler that works without a GPU."""

    def __init__(self, optimizer, scale):
        OptimWrapper.__init__(self, optimizer)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)


def test_a_critic_s_gradient_stops_the_student_too():
    run = joint(Run(dict(critic=Critic(broken))))
    run.stops(r'gradient of kd\.critic\.loss_critic is not finite')


def test_steps_that_loss_scaling_skips_are_no_fault():
    """Neither the student's nor the critic's, whose gradient overflows alone."""
    run = joint(Run(dict(critic=Critic(lambda x: x * 1e30))), scale=2.0**100)
    assert run.hook.watch is None
    before, student = copy.deepcopy(run.model.state_dict()), run.model.head.fc.weight.clone()
    run.step()
    key = 'objectives.critic.factor'
    assert torch.equal(run.model.state_dict()[key], before[key])
    assert not torch.equal(run.model.head.fc.weight, student)
    assert run.optim_wrapper.student.loss_scaler.get_scale() == 2.0**99


class Spoil(Hook):
    """What an update may do even with a gradient that is finite."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 3:
            next(runner.model.parameters()).data[0] = float('nan')


@pytest.mark.parametrize('hooks', [[], [dict(type='EMAHook')]])
def test_no_checkpoint_holds_them(tmp_path, hooks):
    runner = make(tmp_path, custom_hooks=[Spoil(), *hooks])
    with pytest.raises(FloatingPointError, match=r'is written at iteration 4: body\.0\.weight'):
        runner.train()
    assert [p.name for p in tmp_path.glob('*.p*') if p.suffix != '.py'] == ['epoch_1.pth']
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_1.pth')
