"""Resumed epochs and iterations repeat the numbers of an uninterrupted run; that one, those of stock."""

import pytest
from mmengine.runner import Runner as MMRunner
from resume_toys import EPOCH, VAL_WORKER, by_iter, endless, iterations, train

pytestmark = pytest.mark.usefixtures('quick')


def test_epochs_in_one_process(check):
    whole, again = check('epoch_1.pth', val={})
    assert sorted(again.metrics) == [7, 14, 21]


@pytest.mark.parametrize('persistent', [True, False])
def test_epochs_with_workers(check, persistent):
    options = dict(num_workers=2, persistent_workers=persistent)
    val = VAL_WORKER | dict(persistent_workers=persistent)
    check('epoch_2.pth', train=options, val=val)


def test_inside_an_epoch(check):
    """Iterations 7 and 14 end an epoch that is not yet over for the hooks."""
    check('iter_3.pth', 'iter_7.pth', 'iter_8.pth', save=by_iter, val={})


@pytest.mark.parametrize('persistent', [True, False])
def test_inside_an_epoch_with_workers(check, persistent):
    options = dict(num_workers=2, persistent_workers=persistent)
    val = VAL_WORKER | dict(persistent_workers=persistent)
    check('iter_1.pth', 'iter_8.pth', 'iter_11.pth', save=by_iter, train=options, val=val)


@pytest.mark.parametrize('workers', [0, 2])
def test_iterations(check, workers):
    train = endless(num_workers=workers)
    check('iter_5.pth', 'iter_8.pth', loop=iterations, save=by_iter, train=train, val={})


@pytest.mark.parametrize('workers', [0, 2])
def test_iterations_over_finite_data(check, workers):
    train = dict(num_workers=workers)
    check('iter_7.pth', 'iter_10.pth', loop=iterations, save=by_iter, train=train, val={})


def test_validation_that_was_due_is_not_lost(check):
    """Its metric steers the learning rate; the killed run had not come that far."""
    plateau = dict(type='ReduceOnPlateauLR', monitor='mean', rule='greater', patience=0)
    whole, again = check('epoch_1.pth', val={}, param_scheduler=plateau)
    assert EPOCH in again.metrics
    assert len({rate for _, rate, _ in whole.losses.values()}) > 1


def test_validation_that_was_done_is_not_repeated(check):
    _, again = check('epoch_1.pth', val={}, save=dict(save_best='mean', rule='greater'))
    assert EPOCH not in again.metrics


def test_resumed_three_times(chain):
    chain(
        'iter_2.pth', 'iter_9.pth', 'iter_12.pth', save=by_iter, train=dict(num_workers=2), val={}
    )


def test_resumed_twice_between_validations(chain):
    """The validation workers of the first run, started at 8, drew their seed then, not at 16."""
    chain(
        'iter_10.pth',
        'iter_13.pth',
        loop=dict(type='IterBasedTrainLoop', max_iters=20, val_interval=8),
        save=by_iter,
        train=endless(num_workers=2),
        val=VAL_WORKER,
    )


@pytest.mark.parametrize(
    'case',
    [
        dict(val={}),
        dict(train=dict(num_workers=2), val=VAL_WORKER),
        dict(loop=iterations, train=endless(num_workers=2), val={}, save=by_iter),
        dict(loop=dict(iterations, max_iters=9), val={}, save=by_iter),
    ],
    ids=['epochs', 'workers', 'iterations', 'finite'],
)
def test_uninterrupted_run_is_stock(tmp_path, case):
    stock = train(tmp_path / 'stock', runner=MMRunner, **case)
    ours = train(tmp_path / 'ours', **case)
    ours.assert_continues(stock)
    assert len(ours.losses) == len(stock.losses)
