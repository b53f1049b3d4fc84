"""Ensemble: one Side of means, members of any kind, and every refusal."""

import copy
import json

import pytest
import torch
from teacher_toys import assert_same, check_resumes, train

from mmkd.distiller import Distiller
from mmkd.schedule import Progress
from mmkd.tap import parse_taps
from mmkd.teacher import Teacher, build_model
from mmkd.teachers import Ensemble
from mmkd.teachers.means import mean_of, probability_mean
from mmkd.testing import (
    classification_batch,
    detection_batch,
    segmentation_batch,
    tiny_classifier,
    tiny_faster_rcnn,
    tiny_mask2former,
    tiny_pspnet,
    tiny_retinanet,
)


def classifier(seed=0, num_classes=3, **changes):
    torch.manual_seed(seed)
    model = build_model(tiny_classifier(num_classes=num_classes, **changes))
    torch.nn.init.normal_(model.head.fc.weight, std=2)
    return model


def frozen(*args, **kwargs):
    return Teacher(classifier(*args, **kwargs), 'random')


def two(**options):
    return Ensemble(dict(a=frozen(1), b=frozen(2)), **options)


def distil(one, student=None, /, **objective):
    objective = dict(dict(type='mmkd.KD'), **objective)
    student = classifier() if student is None else student
    return Distiller(student, dict(it=objective), one, preflight=False)


def show(model, tap='head.fc', data=None):
    inputs, samples = data or classification_batch(4)
    return model.teachers['teacher'](inputs, samples, model.pixels)[tap][0]


def members_show(ensemble, model, tap='head.fc', data=None):
    inputs, samples = data or classification_batch(4)
    return [m(inputs, samples, model.pixels)[tap][0] for m in ensemble.members.values()]


# ----------------------------------------------------------------------------------------- means


def test_mean_of_logits():
    ensemble = two(weights=dict(a=3, b=1))
    model = distil(ensemble)
    wanted = mean_of(members_show(ensemble, model), [0.75, 0.25])
    assert torch.equal(show(model), wanted)


def test_mean_of_probabilities():
    ensemble = two(mean='probability', tau=4.0)
    model = distil(ensemble, tau=4.0)
    found, each = show(model), members_show(ensemble, model)
    assert torch.equal(found, probability_mean(each, [0.5, 0.5], 4.0))
    mean = sum((z / 4).softmax(1) for z in each) / 2
    torch.testing.assert_close((found / 4).softmax(1), mean, rtol=0, atol=1e-6)


def test_mean_of_scores_made_of_masks():
    """Queries of two networks have no common order, but the scores of a pixel have."""
    networks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        networks.append(Teacher(build_model(tiny_mask2former(4)), 'random'))
    ensemble = Ensemble(dict(zip('ab', networks, strict=True)))
    model = distil(ensemble, build_model(tiny_pspnet(4)))
    tap, data = 'decode_head.forward()@scores', segmentation_batch(2, (64, 96))
    found, each = show(model, tap, data), members_show(ensemble, model, tap, data)
    assert found.shape == each[0].shape == (2, 3, 16, 24)
    assert torch.equal(found, mean_of(each, [0.5, 0.5]))
    assert model.train().loss(*data)['kd.it.loss'] > 0


def test_mean_of_features():
    ensemble = two(mean='feature')
    model = distil(ensemble, type='mmkd.SP', student='backbone', teacher='backbone')
    wanted = mean_of(members_show(ensemble, model, 'backbone'), [0.5, 0.5])
    assert torch.equal(show(model, 'backbone'), wanted)


def test_mean_of_pixels():
    parts = {}
    for i, name in enumerate('ab'):
        torch.manual_seed(i)
        parts[name] = Teacher(build_model(tiny_pspnet()), 'random')
    ensemble = Ensemble(parts, mean='probability', tau=1.0)
    model = distil(ensemble, build_model(tiny_pspnet()))
    data, tap = segmentation_batch(), 'decode_head.conv_seg'
    each = members_show(ensemble, model, tap, data)
    assert torch.equal(show(model, tap, data), probability_mean(each, [0.5, 0.5], 1.0))


def test_maps_of_a_detector():
    parts = {}
    for i, name in enumerate('ab'):
        torch.manual_seed(i)
        parts[name] = Teacher(build_model(tiny_retinanet()), 'random')
    ensemble = Ensemble(parts, mean='feature')
    model = distil(ensemble, build_model(tiny_retinanet()), type='mmkd.PKD')
    inputs, samples = detection_batch()
    found = model.teachers['teacher'](inputs, samples, model.pixels)['neck']
    each = [m(inputs, samples, model.pixels)['neck'] for m in ensemble.members.values()]
    for level, pair in zip(found, zip(*each, strict=True), strict=True):
        assert torch.equal(level, mean_of(pair, [0.5, 0.5]))


def padded(seed, divisor):
    torch.manual_seed(seed)
    teacher = Teacher(build_model(tiny_pspnet()), 'random')
    teacher.pixels.divisor = divisor
    return teacher


@pytest.mark.parametrize('options', [dict(mean='feature'), dict(mean='probability', tau=1.0)])
def test_padding_of_one_member_alone_is_cut_off(options):
    """Images of 64 pixels are 96 for b, whose maps are larger by a half."""
    ensemble = Ensemble(dict(a=padded(1, 32), b=padded(2, 96)), **options)
    model = distil(ensemble, build_model(tiny_pspnet()))
    data, tap = segmentation_batch(), 'decode_head.conv_seg'
    a, b = members_show(ensemble, model, tap, data)
    assert b.shape[2] == a.shape[2] * 3 // 2
    b = b[:, :, : a.shape[2], : a.shape[3]]
    wanted = mean_of((a, b), [0.5, 0.5])
    if options['mean'] == 'probability':
        wanted = probability_mean((a, b), [0.5, 0.5], 1.0)
    assert torch.equal(show(model, tap, data), wanted)


def test_weights_from_a_file(tmp_path):
    (tmp_path / 'w.json').write_text(json.dumps(dict(a=3, b=1)))
    assert two(weights=str(tmp_path / 'w.json')).weights == dict(a=0.75, b=0.25)


def test_one_member_is_that_teacher():
    alone = frozen(1)
    data = classification_batch(4)
    wanted = show(distil(alone), data=data)
    for options in (dict(mean='logit'), dict(mean='probability', tau=4.0)):
        model = distil(Ensemble(dict(a=frozen(1)), **options))
        assert torch.equal(show(model, data=data), wanted)


def test_one_member_trains_as_that_teacher(tmp_path):
    entry = dict(config=tiny_classifier(width=4), checkpoint=save(tmp_path, 1))
    one = train(tmp_path / 'one', teacher=dict(type='mmkd.Ensemble', members=dict(a=entry)))
    assert_same(one, train(tmp_path / 'other', teacher=entry))


def save(folder, seed):
    path = folder / f'{seed}.pth'
    torch.save(classifier(seed).state_dict(), path)
    return str(path)


def test_members_are_of_any_kind(tmp_path):
    entry = dict(config=tiny_classifier(width=4), checkpoint=save(tmp_path, 1))
    members = dict(fixed=entry, mean=dict(type='mmkd.Momentum', decay=0.9))
    teacher = dict(type='mmkd.Ensemble', members=members)
    whole, _ = check_resumes(tmp_path, 5, teacher=teacher)
    assert whole.model.teachers['teacher'].members['mean'].moves == 8


def test_an_ensemble_is_ready_when_all_are(tmp_path):
    members = dict(a=dict(config=tiny_classifier(width=4), checkpoint='random'))
    members['b'] = dict(type='mmkd.Snapshot', cycles=2)
    runner = train(tmp_path, teacher=dict(type='mmkd.Ensemble', members=members))
    assert ['kd.kd.loss' in losses for losses in runner.watch.losses.values()] == 4 * [
        False
    ] + 4 * [True]


# ------------------------------------------------------------------------------------ random pick


def test_a_member_is_drawn_by_seed_and_iteration():
    ensemble = two(pick='random', weights=dict(a=3, b=1))

    def drawn(seed=0):
        ensemble.seed = seed
        found = []
        for i in range(400):
            ensemble.before_step(Progress(i, 400))
            found += ensemble.shown()
        return found

    state = torch.get_rng_state()
    first = drawn()
    assert first == drawn() and first != drawn(seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert 260 < first.count('a') < 340


def test_the_drawn_member_alone_is_shown():
    ensemble = two(pick='random')
    model = distil(ensemble)
    ensemble.before_step(Progress(0, 10))
    name = ensemble.shown()[0]
    wanted = members_show(ensemble, model)[list(ensemble.members).index(name)]
    ensemble.members['a' if name == 'b' else 'b'].model.forward = None  # never called
    assert torch.equal(show(model), wanted)


def test_a_drawn_run_resumes(tmp_path):
    members = {
        n: dict(config=tiny_classifier(width=4), checkpoint=save(tmp_path, i))
        for i, n in enumerate('ab')
    }
    check_resumes(tmp_path, 3, teacher=dict(type='mmkd.Ensemble', members=members, pick='random'))


# ------------------------------------------------------------------------------------ guarantees


def test_weight_zero_is_plain_training(tmp_path):
    members = {n: dict(config=tiny_classifier(width=4), checkpoint='random') for n in 'ab'}
    teacher = dict(type='mmkd.Ensemble', members=members)
    objectives = dict(kd=dict(type='mmkd.KD', weight=0))
    one = train(tmp_path / 'a', teacher=teacher, objectives=objectives)
    assert_same(one, train(tmp_path / 'b', distils=False))


def test_it_has_no_state_of_its_own():
    assert two().state_dict() == {}
    assert copy.deepcopy(ensemble := two()) is ensemble


def test_a_copy_listens_for_itself():
    ensemble = two()
    ensemble.set_taps(parse_taps('head.fc'))
    other = copy.copy(ensemble)
    other.set_taps(parse_taps('pool'))
    assert list(ensemble.members['a'].recorder.taps) == ['head.fc']


def test_the_plan_names_every_member():
    text = str(distil(two(weights=dict(a=3, b=1))).plan)
    assert 'teacher: Ensemble, mean of logits of a (0.75), b (0.25)' in text
    assert 'teacher.a: Classifier' in text and 'teacher.b: Classifier' in text


def test_members_follow_the_student_to_another_dtype_never():
    model = distil(two())
    model.to(torch.float64)
    parts = model.teachers['teacher'].parts().values()
    assert all(p.dtype == torch.float32 for part in parts for p in part.model.parameters())


# ---------------------------------------------------------------------------------- label spaces


def cats_and_cars(**options):
    members = dict(
        a=dict(config=classifier(1, 2), checkpoint='random', classes=['cat', 'dog']),
        b=dict(config=classifier(2, 2), checkpoint='random', classes=['dog', 'car']),
    )
    return Ensemble(members, mean='probability', tau=4.0, **options)


def test_union_of_classes():
    ensemble = cats_and_cars(classes='union')
    model = distil(ensemble)
    assert ensemble.model.dataset_meta['classes'] == ('cat', 'dog', 'car')
    inputs, samples = classification_batch(4)
    first, second = (
        (m(inputs, samples, model.pixels)['head.fc'][0] / 4).softmax(1)
        for m in ensemble.members.values()
    )
    raw = torch.stack((first[:, 0], (first[:, 1] + second[:, 0]) / 2, second[:, 1]), 1)
    wanted = raw / raw.sum(1, keepdim=True)
    torch.testing.assert_close((show(model) / 4).softmax(1), wanted, rtol=0, atol=1e-6)


def test_members_of_any_kind_say_their_classes():
    union = show(distil(cats_and_cars(classes='union')))
    members = dict(
        a=dict(type='mmkd.Teacher', config=classifier(1, 2), checkpoint='random'),
        b=dict(config=classifier(2, 2), checkpoint='random', classes=['dog', 'car']),
    )
    members['a']['classes'] = ['cat', 'dog']
    ensemble = Ensemble(members, mean='probability', tau=4.0, classes='union')
    assert torch.equal(show(distil(ensemble)), union)


def test_the_order_of_a_list():
    ensemble = cats_and_cars(classes=['car', 'cat', 'dog'])
    union = show(distil(cats_and_cars(classes='union')))
    torch.testing.assert_close(show(distil(ensemble)), union[:, [2, 0, 1]], rtol=0, atol=1e-5)


def test_the_union_of_one_is_its_own():
    entry = dict(config=classifier(1), checkpoint='random', classes=['x', 'y', 'z'])
    ensemble = Ensemble(dict(a=entry), mean='probability', tau=4.0, classes='union')
    assert torch.equal(show(distil(ensemble)), show(distil(frozen(1))))


# ----------------------------------------------------------------------------------- specialists

NAMES = ['cat', 'dog', 'car', 'bus']


def specialists(**options):
    general = classifier(1, 4).eval()
    with torch.no_grad():  # opinions that differ from image to image
        general.head.fc.bias -= general(classification_batch(16)[0]).mean(0)
    members = dict(
        g=dict(config=general, checkpoint='random', classes=NAMES),
        pets=dict(config=classifier(2, 3), checkpoint='random', classes=['cat', 'dog']),
    )
    options = dict(dict(mean='specialists', tau=4.0, generalist='g'), **options)
    return Ensemble(options.pop('members', members), **options)


def test_specialists_are_asked_where_they_know_the_best_class():
    ensemble = specialists()
    model = distil(ensemble, classifier(num_classes=4))
    data = classification_batch(16)
    found = (show(model, data=data) / 4).softmax(1)
    g, p = members_show(ensemble, model, data=data)
    asked = g.argmax(1) < 2
    assert asked.any() and not asked.all()
    p, q = (p / 4).softmax(1), (g / 4).softmax(1)
    closed = torch.cat(
        (
            (q[:, :2] + p[:, :2]) / 2,
            q[:, 2:] * ((q[:, 2:].sum(1) + p[:, 2]) / 2 / q[:, 2:].sum(1))[:, None],
        ),
        1,
    )
    torch.testing.assert_close(found[asked], closed[asked], rtol=0, atol=1e-6)
    assert torch.equal(show(model, data=data)[~asked], g[~asked])


def test_the_dustbin_is_outweighed_as_often_as_it_was_left_out():
    plain, more = (
        show(distil(specialists(oversampling=factor), classifier(num_classes=4)))
        for factor in (1.0, dict(pets=8.0))
    )
    assert not torch.equal(plain, more)


def test_more_of_the_best_classes_ask_more_specialists():
    data = classification_batch(16)
    one, all_ = (
        show(distil(specialists(top=top), classifier(num_classes=4)), data=data) for top in (1, 4)
    )
    assert not torch.equal(one, all_)


def test_the_generalist_alone_is_kd():
    ensemble = specialists(members=dict(g=frozen(1)))
    assert torch.equal(show(distil(ensemble)), show(distil(frozen(1))))


@pytest.mark.parametrize(
    ('classes', 'outputs', 'words'),
    [
        ([], 1, 'knows 0 of 4 classes'),
        (NAMES, 5, 'knows 4 of 4 classes'),
        (['cat', 'fox'], 3, 'must be classes of the generalist'),
        (['cat', 'dog', 'car', 'bus'], 3, 'the last of which is the dustbin'),
        (None, 3, 'the last of which is the dustbin'),
    ],
)
def test_subsets_that_are_none(classes, outputs, words):
    members = dict(g=dict(config=classifier(1, 4), checkpoint='random', classes=NAMES))
    members['m'] = dict(config=classifier(2, outputs), checkpoint='random', classes=classes)
    with pytest.raises(ValueError, match=f"specialist 'm'.*{words}"):
        distil(specialists(members=members), classifier(num_classes=4))


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(members={}), 'needs members='),
        (dict(members={'a.b': frozen()}), "text without dots, found 'a.b'"),
        (dict(members={1: frozen()}), 'text without dots, found 1'),
        (dict(members=dict(a='teacher.py')), "member 'a' must be dict.*found 'teacher.py'"),
        (dict(mean='median'), "mean must be one of \\['logit'"),
        (dict(mean='probability'), 'give tau='),
        (dict(mean='specialists', generalist='a'), 'give tau='),
        (dict(mean='logit', tau=2.0), 'has no temperature'),
        (dict(tau=0, mean='probability'), 'temperature tau'),
        (dict(classes='union'), 'merges probabilities'),
        (dict(mean='probability', tau=1.0, generalist='a'), 'goes with'),
        (dict(mean='specialists', tau=1.0), 'goes with'),
        (dict(mean='specialists', tau=1.0, generalist='c'), "generalist='c' is none of"),
        (dict(mean='specialists', tau=1.0, generalist='a', pick='random'), 'neither weights nor'),
        (dict(mean='specialists', tau=1.0, generalist='a', oversampling=0), 'oversampling'),
        (dict(mean='specialists', tau=1.0, generalist='a', oversampling=dict(c=1)), 'oversampling'),
        (dict(mean='specialists', tau=1.0, generalist='a', top=0), 'top'),
        (dict(pick='best'), 'pick must be one of'),
        (dict(seed=-1), 'seed'),
        (dict(weights=dict(a=1)), 'a number for each of a, b'),
        (dict(weights=dict(a=1, c=1)), 'a number for each of a, b'),
        (dict(weights=dict(a=1, b=-1)), 'at least 0'),
        (dict(weights=dict(a=1, b=float('nan'))), 'finite'),
        (dict(weights=dict(a=0, b=0)), 'not all 0'),
        (dict(weights=3), 'a number for each of'),
    ],
)
def test_bad_options(options, words):
    options = dict(members=dict(a=frozen(1), b=frozen(2))) | options
    with pytest.raises(ValueError, match=words):
        Ensemble(**options)


def test_a_file_of_weights_that_is_none(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match='weights: / is a folder, and a file is needed',
    ):
        Ensemble(dict(a=frozen(), b=frozen()), weights='/')  # a folder
    (tmp_path / 'w.json').write_text('a: 1')
    with pytest.raises(ValueError, match='is no JSON file'):
        two(weights=str(tmp_path / 'w.json'))
    with pytest.raises(FileNotFoundError):
        two(weights=str(tmp_path / 'other.json'))


def test_another_temperature():
    with pytest.raises(ValueError, match="'it'.*KD has the temperature 2.0.*tau=4"):
        distil(two(mean='probability', tau=4.0), tau=2.0)


def test_taps_without_class_scores():
    with pytest.raises(ValueError, match="SP listens at 'backbone'.*mean='feature'"):
        distil(two(), type='mmkd.SP', student='backbone', teacher='backbone')


def test_members_of_unequal_shapes():
    ensemble = Ensemble(dict(a=frozen(1), b=frozen(2, width=8)), mean='feature')
    with pytest.raises(ValueError, match="member 'a' shows .*and member 'b'.*equal shapes"):
        distil(ensemble, type='mmkd.SP', student='backbone', teacher='backbone')


def test_shapes_that_differ_in_a_step_only():
    ensemble = two(mean='feature')
    model = distil(ensemble, type='mmkd.SP', student='backbone', teacher='backbone')
    inputs, samples = classification_batch(4)
    ensemble.members['b'].model.backbone.register_forward_hook(
        lambda m, i, out: [o[:2] for o in out]
    )
    with pytest.raises(ValueError, match="at 'backbone' member 'a' shows"):
        ensemble(inputs, samples, model.pixels)


def test_members_of_other_classes():
    members = dict(
        a=dict(config=classifier(1), checkpoint='random', classes=['x', 'y', 'z']),
        b=dict(config=classifier(2), checkpoint='random', classes=['x', 'z', 'y']),
    )
    with pytest.raises(ValueError, match="members 'a' and 'b' have other classes.*union"):
        distil(Ensemble(members))


@pytest.mark.parametrize(
    ('classes', 'own', 'words'),
    [
        ('all', ['dog', 'car'], "must be 'union' or a list"),
        (['cat', 'dog'], ['dog', 'car'], r"missing are \['car'\]"),
        (['cat', 'dog', 'car', 'bus'], ['dog', 'car'], r"nobody knows \['bus'\]"),
        (['cat', 'dog', 'car', 'car'], ['dog', 'car'], 'once'),
        ('union', None, "member 'b' has 2 outputs and no class names"),
        ('union', ['dog'], "member 'b' has 2 outputs and 1 class names"),
    ],
)
def test_classes_that_cannot_be_merged(classes, own, words):
    members = dict(
        a=dict(config=classifier(1, 2), checkpoint='random', classes=['cat', 'dog']),
        b=dict(config=classifier(2, 2), checkpoint='random', classes=own),
    )
    with pytest.raises(ValueError, match=words):
        distil(Ensemble(members, mean='probability', tau=4.0, classes=classes))


def test_detectors_have_no_label_space():
    entry = dict(config=tiny_retinanet(), checkpoint='random')
    with pytest.raises(ValueError, match='class scores of whole images'):
        Ensemble(dict(a=entry, b=entry), mean='probability', tau=1.0, classes='union')


def test_who_asks_the_teacher_again_is_refused():
    entry = dict(config=tiny_faster_rcnn(), checkpoint='random')
    ensemble = Ensemble(dict(a=entry, b=entry), mean='feature')
    with pytest.raises(ValueError, match="'it'.*KD runs parts of the teacher again.*Ensemble"):
        distil(ensemble, build_model(tiny_faster_rcnn()))
