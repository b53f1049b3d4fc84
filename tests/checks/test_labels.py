"""Number, names and order of the classes of data, student, teacher and the teacher's file."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mmkd.checks.labels import check_labels, check_teacher, check_tested, labels_of, relation
from mmkd.distiller import Distiller
from mmkd.families.class_heads import Labels
from mmkd.methods.at import AT
from mmkd.methods.cwd import CWD
from mmkd.methods.fgfi import FGFI
from mmkd.methods.kd import KD
from mmkd.methods.matched_masks import MatchedMasks
from mmkd.teacher import Teacher, build_model
from mmkd.teachers import Ensemble
from mmkd.testing import (
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_mask2former,
    tiny_pspnet,
    tiny_retinanet,
)

NAMES = ('ant', 'bee', 'cow')
SWAPPED = ('ant', 'cow', 'bee')


def data(classes, **more):
    return SimpleNamespace(metainfo=dict(classes=classes), **more)


def runner_of(train, val=None, cfg=None):
    def loader(classes):
        own = classes if isinstance(classes, SimpleNamespace) else data(classes)
        return SimpleNamespace(dataset=own)

    return SimpleNamespace(
        train_dataloader=loader(train),
        val_loop=None if val is None else object(),
        val_dataloader=loader(val),
        test_dataloader=loader(train),
        cfg=cfg,
    )


def distiller_of(names, objective=None, make=tiny_classifier, teacher_classes=3, **options):
    teacher = Teacher(make(8, teacher_classes), checkpoint='random')
    teacher.model.dataset_meta = dict(classes=names)
    return Distiller(make(), dict(it=objective or KD()), teacher, **options)


def at():
    return AT(student='backbone.layer3')


@pytest.mark.parametrize('names', [NAMES, list(NAMES), None, ('Ant', 'BEE', 'c_o w')])
def test_equal_or_unknown_names_pass(names, log):
    check_labels(runner_of(NAMES, NAMES), distiller_of(names))
    check_labels(runner_of(None), distiller_of(NAMES))
    assert not log.text


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (SWAPPED, "3 and 3 classes, and label 1 is 'bee' and 'cow'"),
        (('ant', 'bee', 'dog'), "3 and 3 classes, and label 2 is 'cow' and 'dog'"),
    ],
)
@pytest.mark.parametrize('make', [tiny_classifier, tiny_faster_rcnn, tiny_pspnet, tiny_mask2former])
def test_a_teacher_of_other_classes_is_refused_where_they_are_compared(make, names, message):
    with pytest.raises(ValueError, match=f"data and of teacher 'teacher' .* {message}.* it comp"):
        check_labels(runner_of(NAMES), distiller_of(names, make=make))


def test_queries_that_classify_masks_are_compared_by_class():
    model = distiller_of(SWAPPED, MatchedMasks(), tiny_mask2former)
    with pytest.raises(ValueError, match="label 1 is 'bee' and 'cow'.*it compares classes"):
        check_labels(runner_of(NAMES), model)


def test_an_ensemble_reads_a_teacher_of_another_order_by_name():
    member = Teacher(tiny_pspnet(8), checkpoint='random')
    member.model.dataset_meta = dict(classes=SWAPPED)
    mapped = Ensemble(dict(one=member), mean='probability', tau=1.0, classes=NAMES)
    check_labels(runner_of(NAMES), Distiller(tiny_pspnet(), dict(it=KD()), mapped))


def test_preflight_false_reports_it(log):
    check_labels(runner_of(NAMES), distiller_of(SWAPPED, preflight=False))
    assert "label 1 is 'bee' and 'cow'" in log.text


@pytest.mark.parametrize(
    ('make', 'objective'), [(tiny_classifier, at), (tiny_retinanet, FGFI), (tiny_faster_rcnn, CWD)]
)
def test_where_features_are_compared_another_order_is_reported(make, objective, log):
    check_labels(runner_of(NAMES), distiller_of(SWAPPED, objective(), make))
    assert "trained on other classes (label 1 is 'bee' and 'cow'); it does not comp" in log.text


@pytest.mark.parametrize(('names', 'good'), [(NAMES[1:], True), (None, True), (SWAPPED[1:], False)])
def test_a_background_that_the_teacher_s_tap_adds_is_a_class_of_the_data_alone(names, good):
    kd = KD('decode_head.conv_seg', 'decode_head.forward()@scores(background=0)', resize='student')
    teacher = Teacher(tiny_mask2former(4, num_classes=2), checkpoint='random')
    teacher.model.dataset_meta = dict(classes=names)
    model = Distiller(tiny_pspnet(4), dict(it=kd), teacher)
    if good:
        check_teacher('teacher', model, Labels(NAMES))
    else:
        with pytest.raises(ValueError, match="label 0 is 'bee' and 'cow'"):
            check_teacher('teacher', model, Labels(NAMES))


def test_a_teacher_of_some_classes_must_be_mapped_by_name(log):
    def check(names, class_map):
        model = distiller_of(names, KD(class_map=class_map), teacher_classes=2)
        check_labels(runner_of(NAMES), model)

    check(('cow', 'ant'), [2, 0])
    check(None, [2, 0])
    assert not log.text
    with pytest.raises(ValueError, match=r'class_map=\[1, 0\] of it takes the classes bee, ant of'):
        check(('cow', 'ant'), [1, 0])
    check(('n01', 'n02'), [0, 1])
    assert 'have no class name in common' in log.text


def test_a_mapped_background_has_no_name():
    teacher = Teacher(tiny_pspnet(4, num_classes=3), checkpoint='random')
    student, names = tiny_pspnet(4, num_classes=4), ('cow', 'ant')
    teacher.model.dataset_meta = dict(classes=names)
    for class_map, good in (([2, 0, 3], True), ([0, 2, 3], False)):
        model = Distiller(student, dict(it=KD(class_map=class_map)), teacher)
        if good:
            check_teacher('teacher', model, Labels(NAMES))
        else:
            with pytest.raises(ValueError, match='takes the classes ant, cow of'):
                check_teacher('teacher', model, Labels(NAMES))


def test_a_teacher_whose_features_alone_are_seen_may_know_other_classes(log):
    check_labels(runner_of(NAMES), distiller_of(('x', 'y'), at(), teacher_classes=2))
    assert not log.text


def test_an_objective_of_weight_zero_compares_nothing():
    check_labels(runner_of(NAMES), distiller_of(SWAPPED, KD(weight=0)))


def test_names_in_the_file_of_a_head_that_was_left_out_say_nothing(log):
    check_labels(runner_of(NAMES), distiller_of(tuple('abcdefgh')))
    assert not log.text


def test_a_teacher_without_names_is_counted():
    five = Labels(tuple('abcde'))
    with pytest.raises(
        ValueError, match="'teacher' is built for 3 classes, the training data has 5"
    ):
        check_teacher('teacher', distiller_of(None), five)
    check_teacher('teacher', distiller_of(None, at()), five)


def test_names_of_two_vocabularies_cannot_be_compared(log):
    check_labels(runner_of(NAMES), distiller_of(('n01', 'n02', 'n03')))
    assert "teacher 'teacher' have no class name in common ('ant', 'n01')" in log.text


@pytest.mark.parametrize('names', [SWAPPED, ('ant', 'bee'), ('ant', 'bee', 'cow', 'dog')])
@pytest.mark.parametrize('make', [tiny_classifier, tiny_retinanet, tiny_pspnet])
def test_other_classes_in_the_validation_data_are_refused(make, names):
    with pytest.raises(ValueError, match='training data and of the validation data do not mean'):
        check_labels(runner_of(NAMES, names), build_model(make()))


@pytest.mark.parametrize('found', [SWAPPED, NAMES[:2]])
def test_files_must_number_the_classes_alike(found):
    one, other = (
        data(NAMES, numbered_as=order, ann_file=f'{len(order)}.json') for order in (NAMES, found)
    )
    message = r'3.json and of .* [23].json do not mean .*List "categories" alike'
    joined = data(NAMES, datasets=[one, other])
    for runner in (runner_of(one, other), runner_of(joined)):
        with pytest.raises(ValueError, match=message):
            check_labels(runner, build_model(tiny_retinanet()))
    check_labels(runner_of(one, data(NAMES)), build_model(tiny_retinanet()))


def test_label_zero_must_be_reduced_in_both_splits_or_in_none():
    train, val = (data(NAMES, reduce_zero_label=flag) for flag in (True, False))
    with pytest.raises(ValueError, match=r'reduce_zero_label is \{True\}'):
        check_labels(runner_of(train, val), build_model(tiny_pspnet()))
    check_labels(runner_of(train, train), build_model(tiny_pspnet()))


# ------------------------------------------------------------------------------------- test data


def test_test_data_must_be_of_the_checkpoints_classes(log):
    model = build_model(tiny_retinanet())
    model.dataset_meta = dict(classes=SWAPPED)
    with pytest.raises(ValueError, match='the test data and of the checkpoint do not mean'):
        check_tested(runner_of(NAMES), model)
    with pytest.raises(ValueError, match='has 2 classes .ant, bee., but the model 3'):
        check_tested(runner_of(NAMES[:2]), model)
    check_tested(runner_of(('ant', 'bull', 'bee2')), model)
    assert 'of other names than the test data' in log.text


# ---------------------------------------------------------------------------------- where names lie


def test_names_are_found_through_wrappers_and_in_old_metainfo():
    inner = [data(NAMES), SimpleNamespace(metainfo=dict(CLASSES=list(NAMES)))]
    joined = SimpleNamespace(datasets=inner, metainfo=[one.metainfo for one in inner])
    assert labels_of(SimpleNamespace(dataset=joined), 'data').names == NAMES
    assert labels_of(SimpleNamespace(metainfo={}), 'data') is None
    panoptic = SimpleNamespace(
        metainfo=dict(classes=NAMES, thing_classes=NAMES[:2], stuff_classes=NAMES[2:])
    )
    assert labels_of(panoptic, 'data').things == 2


def test_joined_datasets_must_agree():
    joined = SimpleNamespace(datasets=[data(NAMES), data(SWAPPED)])
    with pytest.raises(ValueError, match='a dataset that is joined to it do not mean the same'):
        labels_of(joined, 'the training data')


def test_a_text_is_no_tuple_of_names():
    with pytest.raises(ValueError, match=r"classes='cat', a text .* write classes=\('cat',\)"):
        labels_of(data('cat'), 'the training data')


@pytest.mark.parametrize(
    ('others', 'found'),
    [
        (('Traffic Light', 'STOP-sign'), 'same'),
        (('traffic_light',), 'count'),
        (('stop_sign', 'traffic_light'), 'order'),
        (('traffic_light', 'bus'), 'names'),
        (('car', 'bus'), 'unknown'),
    ],
)
def test_how_two_lists_of_names_relate(others, found):
    assert relation(('traffic_light', 'stop sign'), others) == found


# ---------------------------------------------------------------------------------------- counts


def test_another_number_of_outputs_is_refused():
    with pytest.raises(ValueError, match=r'has 2 classes .*Classifier \(3\).* model.num_classes=2'):
        check_labels(runner_of(NAMES[:2]), build_model(tiny_classifier()))


def test_the_way_out_of_a_distillation_config():
    model = dict(type='mmkd.Distiller', student=tiny_retinanet())
    runner = runner_of(NAMES[:2], cfg=Config(dict(model=model)))
    with pytest.raises(
        ValueError, match=r'bbox_head \(3\).*--cfg-options model.student.bbox_head.num_classes=2,'
    ):
        check_labels(runner, build_model(tiny_retinanet()))


def test_a_channel_without_a_name_is_reported(log):
    check_labels(runner_of(NAMES[:2]), build_model(tiny_pspnet()))
    assert "student's decode_head has one class more than the 2 of the training data" in log.text


@pytest.mark.parametrize('part', ['language_model', 'text_encoder', 'tracker'])
def test_what_numbers_no_classes_is_not_asked(part):
    words = build_model(tiny_retinanet())
    setattr(words, part, object())
    check_labels(runner_of(NAMES[:1]), words)
