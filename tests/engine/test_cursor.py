"""The way back to a place in the data, whoever shuffles and however many workers there are."""

import pytest
from mmengine.dataset import pseudo_collate
from resume_toys import BATCH, EPOCH, SIZE, Noisy, by_iter, loader, log_of_run, train
from torch.utils.data import DataLoader

pytestmark = pytest.mark.usefixtures('quick')


@pytest.mark.parametrize('workers', [0, 2])
def test_sampler_and_workers_seeded_by_torch(check, workers):
    def build():
        return DataLoader(Noisy(), BATCH, True, num_workers=workers, collate_fn=pseudo_collate)

    check('iter_8.pth', save=by_iter, train=build)


def test_resumed_twice_with_shuffling_by_torch(chain):
    """The second time inside the epoch at whose beginning the first one resumed."""

    def build():
        return DataLoader(
            Noisy(), BATCH, True, num_workers=2, persistent_workers=True, collate_fn=pseudo_collate
        )

    save = by_iter | dict(save_best='mean', rule='greater')  # iter_7 once more, after validation
    chain('iter_7.pth', 'iter_10.pth', save=save, train=build, val={})


def test_changed_number_of_workers_is_said(tmp_path):
    train(tmp_path, train=dict(num_workers=2), loop=dict(by_epoch=True, max_epochs=1))
    run = train(tmp_path, resume=True, train={}, log_level='WARNING')
    assert 'num_workers is 0, it was 2' in log_of_run(run)
    assert sorted(run.losses) == list(range(EPOCH, 3 * EPOCH))


def test_changed_batch_size_restarts_the_epoch(tmp_path):
    train(tmp_path, save=by_iter | dict(interval=10), loop=dict(by_epoch=True, max_epochs=2))
    (tmp_path / 'iter_14.pth').unlink()
    sevens = loader() | dict(batch_size=7)
    run = train(tmp_path, resume=True, log_level='WARNING', train_dataloader=sevens)
    assert 'epoch 2 starts from its beginning' in log_of_run(run)
    assert len(run.losses) == 2 * SIZE // 7
