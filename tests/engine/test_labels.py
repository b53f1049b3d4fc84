"""Number, names and order of the classes of data, classifier and teachers."""

from types import SimpleNamespace

import pytest

from mmkd.distiller import Distiller
from mmkd.engine.preflight import check_labels
from mmkd.methods.at import AT
from mmkd.methods.kd import KD
from mmkd.teacher import Teacher, build_model
from mmkd.testing import tiny_classifier, tiny_retinanet

NAMES = ('ant', 'bee', 'cow')


def runner_of(train, val=None):
    def loader(classes):
        return SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=classes)))

    return SimpleNamespace(
        train_dataloader=loader(train),
        val_loop=None if val is None else object(),
        val_dataloader=loader(val),
    )


def distiller_of(names, objective=KD, teacher_classes=3):
    teacher = Teacher(tiny_classifier(8, teacher_classes), checkpoint='random')
    teacher.model.dataset_meta = dict(classes=names)
    options = {} if objective is KD else dict(student='backbone.layer3')
    return Distiller(tiny_classifier(), dict(it=objective(**options)), teacher)


@pytest.mark.parametrize('names', [NAMES, list(NAMES), None])
def test_equal_or_unknown_names_pass(names, log):
    check_labels(runner_of(NAMES, NAMES), distiller_of(names))
    check_labels(runner_of(None), distiller_of(NAMES))
    assert not log.text


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (('ant', 'cow', 'bee'), "3 and 3 classes, and label 1 is 'bee' and 'cow'"),
        (('ant', 'bee'), "3 and 2 classes, and label 2 is 'cow' and None"),
    ],
)
def test_another_order_is_refused_of_teachers_and_of_the_validation_data(names, message):
    with pytest.raises(ValueError, match=f"training data and of teacher 'teacher' .* {message}"):
        check_labels(runner_of(NAMES), distiller_of(names))
    with pytest.raises(ValueError, match=f'training data and of the validation data .* {message}'):
        check_labels(runner_of(NAMES, names), build_model(tiny_classifier()))


def test_a_teacher_whose_features_alone_are_seen_may_know_other_classes():
    check_labels(runner_of(NAMES), distiller_of(('x', 'y'), AT, 2))


def test_names_of_two_vocabularies_cannot_be_compared(log):
    check_labels(runner_of(NAMES), distiller_of(('n01', 'n02', 'n03')))
    assert "teacher 'teacher' have no class name in common ('ant', 'n01')" in log.text


def test_another_number_of_outputs_is_refused():
    with pytest.raises(ValueError, match='has 2 classes, but the classifier 3 outputs: .*=2'):
        check_labels(runner_of(NAMES[:2]), build_model(tiny_classifier()))


def test_detectors_are_not_asked():
    check_labels(SimpleNamespace(), build_model(tiny_retinanet()))
