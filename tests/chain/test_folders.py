"""A work dir says what is done, and of which chain it is."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from chain_toys import run, three

from mmkd.chain import Chain


@pytest.fixture(scope='module')
def finished(paths, tmp_path_factory):
    folder = tmp_path_factory.mktemp('finished') / 'ta'
    run(three(paths), folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    shutil.copytree(finished, tmp_path / 'ta')
    return tmp_path / 'ta'


def test_another_config_is_refused_by_its_keys(paths, folder):
    stages = three(paths)
    stages['student']['options'] = {'optim_wrapper.optimizer.lr': 0.5, 'train_cfg.max_epochs': 3}
    message = (
        r"ta/student holds stage 'student' of another chain or config: optim_wrapper.optimizer.lr "
        r'0.05 -> 0.5; train_cfg.max_epochs 2 -> 3. Give another --work-dir'
    )
    with pytest.raises(ValueError, match=message):
        Chain(stages, str(folder))
    with pytest.raises(ValueError, match='stage .teacher. .*: randomness.seed 0 -> 1'):
        Chain(three(paths), str(folder), seed=1)


def test_stages_of_another_precision_are_not_done(paths, folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    with pytest.raises(ValueError, match="stage 'teacher' of another .*: amp .*True"):
        Chain(three(paths), str(folder), amp=True)


def test_what_does_not_decide_the_result_may_change(paths, folder):
    stages = three(paths)
    stages['student']['options'] = {'log_level': 'ERROR', 'train_dataloader.pin_memory': True}
    assert set(Chain(stages, str(folder)).links.products) == set(stages)


def test_another_reference_is_refused(paths, folder):
    stages = three(paths)
    stages['student']['teacher'] = 'assistant:epoch_1'
    message = r"stage 'student' .*: references.teacher 'assistant:last' -> 'assistant:epoch_1'; "
    with pytest.raises(ValueError, match=f'{message}the file of teacher is another'):
        Chain(stages, str(folder))


def test_another_file_is_refused_but_not_other_bytes_of_the_same_weights(paths, folder):
    path = folder / 'teacher' / 'epoch_2.pth'
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['meta']['time'] = 'another'
    torch.save(checkpoint, path)
    Chain(three(paths), str(folder))
    next(iter(checkpoint['state_dict'].values())).add_(1)
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="stage 'assistant' .*: the file of teacher is another"):
        Chain(three(paths), str(folder))


def test_a_stage_whose_source_is_gone(paths, folder):
    shutil.rmtree(folder / 'teacher')
    message = "assistant holds stage 'assistant', but stage 'teacher', from which it came, is not"
    with pytest.raises(ValueError, match=message):
        Chain(three(paths), str(folder))


def test_a_damaged_checkpoint_is_not_done(paths, folder):
    path = folder / 'student' / 'epoch_2.pth'
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    said, products = run(three(paths), folder)
    assert said[2].startswith('stage 3/3 student: resumed from epoch_1.pth')
    assert Path(products['student'].checkpoint) == path


def test_a_reference_to_a_file_that_was_deleted(paths, folder):
    stages = three(paths)
    shutil.rmtree(folder / 'student')
    stages['student']['teacher'] = 'assistant:epoch_1'
    (folder / 'assistant' / 'epoch_1.pth').unlink()
    chain = Chain(stages, str(folder))
    with pytest.raises(FileNotFoundError, match="Stage 'assistant' is done, but .*epoch_1.pth is"):
        chain.run(say=str)


def test_a_run_without_a_checkpoint_may_become_another_one(paths, folder):
    shutil.rmtree(folder / 'assistant')
    shutil.rmtree(folder / 'student')
    stages = three(paths)
    stages['student']['options'] = {'param_scheduler': dict(type='NoSuchThing')}
    with pytest.raises(KeyError, match='NoSuchThing'):
        run(stages, folder)
    assert (folder / 'student' / 'started.json').is_file()
    stages['student']['options'] = {'train_cfg.max_epochs': 1}
    said, products = run(stages, folder)
    assert said[2].startswith('stage 3/3 student: started')
    assert Path(products['student'].checkpoint).name == 'epoch_1.pth'
    with pytest.raises(ValueError, match='train_cfg.max_epochs 1 -> 2'):
        Chain(three(paths), str(folder))


def test_a_folder_of_another_run(paths, tmp_path):
    (tmp_path / 'ta' / 'teacher').mkdir(parents=True)
    (tmp_path / 'ta' / 'teacher' / 'epoch_1.pth').touch()
    with pytest.raises(ValueError, match='teacher holds checkpoints of a run that is no stage'):
        Chain(three(paths), str(tmp_path / 'ta'))


@pytest.mark.parametrize('text', ['{', '[]', '{"product": 1}'])
def test_a_marker_that_is_none(paths, folder, text):
    (folder / 'teacher' / 'done.json').write_text(text)
    with pytest.raises(
        ValueError, match=r'done.json is no marker of a stage \(.*Delete the folder'
    ):
        Chain(three(paths), str(folder))


def test_a_changed_marker(paths, folder):
    path = folder / 'teacher' / 'done.json'
    marker = json.loads(path.read_text())
    path.write_text(json.dumps(marker | dict(fingerprint='0')))
    with pytest.raises(ValueError, match='its marker was changed'):
        Chain(three(paths), str(folder))
