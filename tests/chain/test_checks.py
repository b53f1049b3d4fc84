"""Every refusal comes before anything trains: nothing is written, and the sentence says what."""

import pytest
import torch
from chain_toys import anyone, recipe, run, three, weights, write, write_images
from mmengine.config import Config

from mmkd.chain import Chain
from mmkd.chain.chain import _dataset_of
from mmkd.chain.checks import class_names, kept_steps
from mmkd.chain.resolving import read_config
from mmkd.chain.stage import Reference, Stage
from mmkd.testing import tiny_classifier

KEEP = {'default_hooks.checkpoint.max_keep_ckpts': -1}


@pytest.fixture
def refuses(tmp_path, monkeypatch):
    """``refuses(stages, message)``: a chain that is not even begun."""
    monkeypatch.chdir(tmp_path)

    def check(stages, message, kind=ValueError, **options):
        with pytest.raises(kind, match=message):
            Chain(stages, str(tmp_path / 'work'), **options)
        assert not (tmp_path / 'work').exists()

    return check


def test_a_teacher_for_a_config_that_does_not_distil(paths, refuses):
    stages = three(paths)
    stages['student']['config'] = paths['plain']
    refuses(stages, "Stage 'student' has teacher=, but .*plain.py has no mmkd.Distiller to take it")
    stages = dict(a=dict(config=paths['plain']), b=dict(config=paths['plain'], objectives='a'))
    refuses(stages, "Stage 'b' has objectives=, but .*plain.py has no mmkd.Distiller")


def test_a_teacher_without_a_name_among_several(images, paths, tmp_path, refuses):
    both = dict(x=anyone(8), y=anyone(6))
    objectives = {k: dict(type='mmkd.KD', teacher_name=k) for k in both}
    own = write(tmp_path, images, several=dict(teacher=both, objectives=objectives))['several']
    first = dict(teacher=dict(config=paths['teacher']))
    refuses(
        first | dict(student=dict(config=own, teacher='teacher')),
        "Stage 'student' asks for a teacher without a name, but .* has these: x, y. Write teacher=dict",
    )
    refuses(
        first | dict(student=dict(config=own, teacher=dict(z='teacher'))),
        "Stage 'student' asks for teacher 'z', but .* has these: x, y.",
    )
    named = first | dict(student=dict(config=own, teacher=dict(x='teacher')))
    assert set(Chain(named, str(tmp_path / 'work')).facts['student'].comparing) == {'x', 'y'}


def test_the_best_of_a_stage_that_does_not_look_for_it(paths, refuses, tmp_path):
    stages = three(paths)
    stages['student']['teacher'] = 'assistant:best'
    refuses(stages, "'assistant:best' needs default_hooks.checkpoint.save_best in .*assistant.py")
    stages['assistant']['options'] = {'default_hooks.checkpoint.save_best': 'top1'}
    Chain(stages, str(tmp_path / 'work'))


def test_a_checkpoint_that_is_not_kept(paths, refuses, tmp_path):
    stages = three(paths)
    stages['student']['teacher'] = 'assistant:epoch_8'
    message = "'assistant:epoch_8' will not be there when stage 'assistant' is done: kept are epoch_1, epoch_2"
    refuses(stages, message)
    stages['student']['teacher'] = 'assistant:epoch_1'
    stages['assistant']['options'] = {'default_hooks.checkpoint.max_keep_ckpts': 1}
    refuses(stages, 'will not be there .* kept are epoch_2. Set')
    stages['assistant']['options'] = {'default_hooks.checkpoint': None}
    refuses(stages, 'assistant.py saves no checkpoint')
    stages['assistant']['options'] = KEEP
    Chain(stages, str(tmp_path / 'work'))


@pytest.mark.parametrize(
    ('hook', 'loop', 'kept'),
    [
        (dict(interval=2), dict(max_epochs=5), ('epoch', [2, 4, 5])),
        (dict(interval=2, save_last=False), dict(max_epochs=5), ('epoch', [2, 4])),
        (dict(interval=1, max_keep_ckpts=2), dict(max_epochs=5), ('epoch', [4, 5])),
        (dict(interval=2, save_begin=1), dict(max_epochs=6), ('epoch', [3, 5, 6])),
        (dict(interval=100, by_epoch=False), dict(max_iters=250), ('iter', [100, 200, 250])),
        (dict(interval=100, by_epoch=False), dict(max_epochs=2), None),
        ({}, dict(max_epochs=3), ('epoch', [3])),
    ],
)
def test_which_checkpoints_a_run_keeps(hook, loop, kept):
    assert kept_steps(Config(dict(train_cfg=loop)), hook) == kept


def test_a_student_of_other_shapes_or_keys(images, paths, refuses, tmp_path):
    stages = dict(
        wide=dict(config=paths['teacher']), narrow=dict(config=paths['plain'], student='wide')
    )
    message = (
        "Stage 'narrow': its student cannot start from 'wide:last', which is another network:\n"
        r"  backbone\S+ is \(8,.*\) in 'wide' and \(4,.*\) here"
    )
    refuses(stages, message)
    with pytest.raises(ValueError, match='  and [0-9]+ more\n') as error:
        Chain(stages, str(tmp_path / 'work'))
    assert str(error.value).count('\n  ') == 11, 'ten keys, and how many more'
    other = recipe(images)
    other.model = tiny_classifier(4, kind='vgg')
    other.dump(str(tmp_path / 'vgg.py'))
    stages = dict(
        a=dict(config=paths['plain']), b=dict(config=str(tmp_path / 'vgg.py'), student='a')
    )
    refuses(stages, r"backbone\S+ is not in 'a'")


@pytest.mark.parametrize('names', [('a', 'c', 'b'), ('a', 'b', 'd'), ('a', 'b')])
def test_classes_that_differ_where_scores_are_compared(names, images, tmp_path, refuses, paths):
    write_images(tmp_path / 'more', ('a', 'b', 'c', 'd'))
    data = images if 'd' not in names else tmp_path / 'more'
    own = write(tmp_path, data, t=dict(width=8, classes=names))['t']
    stages = dict(t=dict(config=own), s=dict(config=paths['assistant'], teacher='t'))
    if len(names) < 3:  # the plan sees that heads differ
        refuses(stages, "Stage 's'")
        return
    refuses(
        stages,
        r"Stage 's': kd compares class scores, but its classes are \(a, b, c; 3\) and those of its "
        rf"teacher 't:last' are \({', '.join(names)}; 3\)",
    )


def test_classes_that_a_teacher_knows_are_compared_by_name(images, tmp_path):
    own = write(
        tmp_path,
        images,
        old=dict(width=4, classes=('a', 'c')),
        new=dict(
            teacher=dict(config=tiny_classifier(4, num_classes=2), checkpoint='random'),
            objectives=dict(kd=dict(type='mmkd.KD', class_map=[0, 2])),
            load_from='old',
        ),
    )
    stages = dict(old=dict(config=own['old']))
    stages['new'] = dict(config=own['new'], teacher='old', files=dict(load_from='old'))
    products = run(stages, tmp_path / 'work')[1]
    assert weights(products['new'].checkpoint)['head.fc.weight'].shape[0] == 3
    stages['new']['options'] = {'model.objectives.kd.class_map': [0, 1]}
    refuses_at = tmp_path / 'other'
    with pytest.raises(ValueError, match=r'class_map=\[0, 1\] of kd means the classes \(a, b; 2\)'):
        Chain(stages, str(refuses_at))
    assert not refuses_at.exists()


def test_data_that_an_earlier_stage_writes_are_not_looked_for():
    """Also where the option is inside of data_prefix, and two are of one dataset."""
    inner = dict(type='x', data_prefix=dict(seg='a'), ann_file='b')
    config = Config(dict(train_dataloader=dict(dataset=dict(type='y', datasets=[inner]))))
    stage, key = Stage('s', config='c'), 'train_dataloader.dataset.datasets.0'
    for option in ('data_prefix.seg', 'ann_file'):
        assert _dataset_of(config, stage, f'{key}.{option}')['ann_file'] == 'b'


def test_names_of_joined_labels_are_listed_in_the_config():
    joined = dict(type='mmkd.JoinLabels', classes=('a', 'b'), dataset=dict(type='x'), others=[])
    config = Config(dict(train_dataloader=dict(dataset=dict(type='y', dataset=joined))))
    assert class_names(config) == ('a', 'b')


def test_classes_of_training_and_validation_that_differ(images, tmp_path, refuses, paths):
    write_images(tmp_path / 'other', ('a', 'c', 'd'))
    stages = three(paths)
    stages['student']['options'] = {'val_dataloader.dataset.data_root': str(tmp_path / 'other')}
    refuses(
        stages, r"Stage 'student' \(.*\): Labels of the training data .* label 1 is 'b' and 'c'"
    )


def test_classes_may_differ_for_features(images, tmp_path, paths):
    own = write(
        tmp_path,
        images,
        t=dict(width=8, classes=('a', 'c', 'b')),
        s=dict(teacher=anyone(8), objectives=dict(at=dict(type='mmkd.AT', student='backbone[2]'))),
    )
    Chain(dict(t=dict(config=own['t']), s=dict(config=own['s'], teacher='t')), str(tmp_path / 'w'))


def test_objectives_of_other_names(images, tmp_path, refuses):
    ft = dict(type='mmkd.FT', phase='paraphraser')
    own = write(
        tmp_path,
        images,
        one=dict(teacher=anyone(8), objectives=dict(words=ft)),
        two=dict(teacher=anyone(8), objectives=dict(ft=dict(type='mmkd.FT'))),
    )
    refuses(
        dict(a=dict(config=own['one']), b=dict(config=own['two'], objectives='a')),
        "Stage 'b': objectives = 'a:last', but no weight of an objective has the same name",
    )


def test_errors_name_the_stage_and_its_config(paths, refuses):
    def last(**changes):
        return three(paths) | dict(student=three(paths)['student'] | changes)

    who = r"^Stage 'student' \(.*student.py\): "
    refuses(last(options={'train_cfg.max_epoch': 3}), who + 'options train_cfg.max_epoch: the conf')
    refuses(
        last(options={'train_cfg.max_epochs': 0}), who + 'train_cfg: max_epochs must be a whole'
    )
    refuses(last(teacher='assistant/peers.x'), who + ".*assistant.py has no peer 'x'")
    message = r"^Stage 'student' \(none.py\): .*none.py' does not exist"
    refuses(last(config='none.py'), message, FileNotFoundError)
    maker = three(paths) | dict(routes=dict(make=dict(type='mmkd.Routes')))
    refuses(maker, r"^Stage 'routes' \(mmkd.Routes\): There is no maker 'mmkd.Routes'")


def test_missing_files(paths, images, refuses, tmp_path):
    stages = dict(a=dict(config=str(tmp_path / 'none.py')))
    refuses(stages, 'none.py', FileNotFoundError)
    stages = dict(a=dict(config=paths['plain'], options={'load_from': 'none.pth'}))
    refuses(stages, r"Stage 'a' \(.*plain.py\): .*none.pth", FileNotFoundError)
    stages = dict(a=dict(config=paths['student'], options={'model.teacher.checkpoint': 'none.pth'}))
    refuses(stages, r"Stage 'a' \(.*student.py\): .*none.pth", FileNotFoundError)
    own = write(tmp_path, tmp_path / 'nowhere', lost={})['lost']
    refuses(dict(a=dict(config=own)), r"Stage 'a' .*lost.py\): .*not found", FileNotFoundError)


def test_a_file_of_the_data_that_a_stage_will_write(paths, refuses, tmp_path):
    config = Config.fromfile(paths['plain'])
    config.train_dataloader.dataset.ann_file = 'later.txt'
    config.dump(str(tmp_path / 'later.py'))
    stages = dict(a=dict(config=paths['plain']), b=dict(config=str(tmp_path / 'later.py')))
    refuses(
        stages, r"Stage 'b' .*later.txt.*not found|not found(.|\n)*later.txt", FileNotFoundError
    )
    stages['b']['files'] = {'train_dataloader.dataset.ann_file': 'a'}
    Chain(stages, str(tmp_path))


def test_configs_that_are_no_run(paths, refuses, tmp_path):
    Config(dict(stages=dict(a=dict(config='b.py')))).dump(str(tmp_path / 'chain.py'))
    refuses(dict(a=dict(config=str(tmp_path / 'chain.py'))), 'chain.py is itself a chain')
    Config(dict(train_cfg={})).dump(str(tmp_path / 'empty.py'))
    refuses(dict(a=dict(config=str(tmp_path / 'empty.py'))), 'empty.py has no model')
    stages = dict(
        a=dict(config=paths['plain']), b=dict(config=paths['plain'], files={'modle.x': 'a'})
    )
    refuses(stages, "Stage 'b': files has the key 'modle.x', but .* has no such place")


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('model.teacher.weights', 'Teacher has no option weights; it has config, checkpoint'),
        ('model.objectives.kd.taus', "Did you mean model.objectives.kd.tau|Did you mean 'tau'"),
        ('train_dataloader.dataset.ann_fil', "ClassFolders has no option ann_fil.*'ann_file'"),
        ('train_cfg.max_epoch', 'Did you mean train_cfg.max_epochs'),
    ],
)
def test_an_option_that_gets_a_file_must_be_one(paths, refuses, key, message):
    stages = dict(a=dict(config=paths['plain']), b=dict(config=paths['student'], files={key: 'a'}))
    refuses(stages, f"Stage 'b'.*({message})")


def test_an_option_that_gets_a_file_may_be_new(paths):
    stage = Stage('b', config=paths['student'], files={'model.teacher.checkpoint': Reference('a')})
    assert read_config(stage, {}, 0)
    stage = Stage('b', config=paths['student'], files={'model.objectives.kd.tau': Reference('a')})
    assert read_config(stage, {}, 0)


def test_amp_without_a_gpu(paths, refuses, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    refuses(dict(a=dict(config=paths['plain'])), "Stage 'a' .*--amp needs a GPU", amp=True)


def test_class_names_are_found_without_a_run(images):
    config = recipe(images)
    assert class_names(config) == ('a', 'b', 'c')
    config.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=config.train_dataloader.dataset
    )
    assert class_names(config) == ('a', 'b', 'c')
    config.train_dataloader.dataset = dict(type='mmdet.CocoDataset', ann_file='none.json')
    assert len(class_names(config)) == 80, 'of the class, without its files'
    config.train_dataloader.dataset = dict(type='None')
    assert class_names(config) is None


@pytest.mark.parametrize(
    ('hook', 'message'),
    [
        (None, r'saves no checkpoint \(default_hooks.checkpoint = None\)'),
        (dict(interval=5, save_last=False), "saves no checkpoint .*'interval': 5, 'save_last': F"),
        (dict(interval=1, out_dir='here'), "checkpoint.out_dir = 'here', but a stage saves into"),
    ],
)
def test_a_stage_that_would_never_be_done(paths, refuses, hook, message):
    stages = three(paths)
    stages['student']['options'] = {'default_hooks.checkpoint': hook}
    if hook:
        hook['type'], hook['_delete_'] = 'CheckpointHook', True
    refuses(stages, f"Stage 'student': .*{message}")
