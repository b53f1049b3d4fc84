"""Settings with which nothing would train."""

import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from runner_toys import make

from mmkd.checks.in_vain import check_settings


@pytest.mark.parametrize('name', ['max_epochs', 'max_iters', 'val_interval'])
@pytest.mark.parametrize('value', [0, -1, 1.5, None, float('nan')])
def test_a_run_has_a_length(name, value):
    with pytest.raises(ValueError, match=f'train_cfg: {name} must be a whole number of at least 1'):
        check_settings({name: value}, None)
    check_settings({name: 1}, None)


@pytest.mark.parametrize('lr', ['fast', -0.1, float('nan'), True])
def test_a_learning_rate_is_a_number(lr):
    wrapper = dict(optimizer=dict(type='SGD', lr=lr))
    for config in (wrapper, dict(constructor='Own', generator=wrapper)):
        with pytest.raises(
            ValueError, match=r'optim_wrapper: optimizer\.lr must be a finite number'
        ):
            check_settings(None, config)
    for good in (0, 0.1, None, torch.tensor(0.1)):
        check_settings(None, dict(optimizer=dict(type='SGD', lr=good)))


@pytest.mark.parametrize('name', ['max_norm', 'clip_value'])
@pytest.mark.parametrize('value', [0, -1.0, None, '5', True, float('nan')])
def test_clipping_leaves_gradients(name, value):
    wrapper = dict(optimizer=dict(type='SGD'), clip_grad={name: value})
    for config in (wrapper, dict(constructor='Own', generator=wrapper)):
        with pytest.raises(ValueError, match=f'clip_grad has {name}=.* leaves no gradient'):
            check_settings(None, config)
    for good in (1, 0.1, float('inf')):
        check_settings(None, dict(wrapper, clip_grad={name: good}))
    check_settings(None, dict(wrapper, clip_grad=None))


def test_the_runner_asks_before_it_reads_data(tmp_path):
    with pytest.raises(ValueError, match='max_epochs must be'):
        make(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=0), train_dataloader=dict(
            dataset=dict(type='Nowhere')))  # fmt: skip


def test_mixed_precision_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    amp = dict(type='AmpOptimWrapper', optimizer=dict(type='SGD'))
    for config in (amp, dict(amp, type=AmpOptimWrapper), dict(constructor='Own', generator=amp)):
        with pytest.raises(ValueError, match="type='AmpOptimWrapper' needs a GPU.*OptimWrapper"):
            check_settings(None, config)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    check_settings(None, amp)
