"""Any-exit networks: the answers of training, from its checkpoint, as plain networks."""

import copy

import pytest
import torch

from mmkd.checkpoint import CheckpointError
from mmkd.distiller import Distiller
from mmkd.edits import AnytimeClassifier
from mmkd.registry import MODELS
from mmkd.rows.exits import answers
from mmkd.tap import Trace
from mmkd.teacher import build_model, load_strictly
from mmkd.testing import classification_batch, tiny_classifier, tiny_faster_rcnn

KINDS = ['resnet', 'mmdet', 'vgg', 'wrn']
METHODS = dict(byot=dict(type='mmkd.BYOT', variant='code'), multi=dict(type='mmkd.MultiExit'))


def trained(tmp_path, kind='resnet', cuts=None, objectives=None, **changes):
    """A Distiller after a few steps of training, and its checkpoint."""
    torch.manual_seed(0)
    entries = objectives or dict(byot=dict(METHODS['byot'], cuts=cuts))
    model = Distiller(build_model(tiny_classifier(4, kind=kind, **changes)), entries)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for seed in range(3):
        losses = model.loss(*classification_batch(8, (32, 32), seed=seed))
        sum(value for key, value in losses.items() if 'loss' in key).backward()
        optimizer.step(), optimizer.zero_grad()
    path = tmp_path / 'trained.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return model.eval(), str(path)


def network(kind='resnet', changes=None, **options):
    torch.manual_seed(5)
    plain = tiny_classifier(4, kind=kind, **(changes or {}))
    return MODELS.build(
        dict(type='mmkd.Edited', model=plain, edits=[dict(type='mmkd.Exits', **options)])
    ).eval()


@torch.no_grad()
def expected(model, inputs, name='byot'):
    """Logits of all exits, as training computes them."""
    objective = model.objectives[name]
    with model.recorder.record(inputs) as side:
        model.student(inputs)
    found = answers(Trace(inputs, [], side), objective.cuts, objective.exits)
    return [*found.logits, found.last]


def pixels():
    return classification_batch(5, (32, 48), seed=9)[0]


@pytest.mark.parametrize('kind', KINDS)
def test_all_exits_answer_as_in_training(kind, tmp_path):
    model, path = trained(tmp_path, kind)
    anytime = network(kind)
    load_strictly(anytime, path, who='test')
    wanted = expected(model, pixels())
    with torch.no_grad():
        found = anytime(pixels())
    assert len(found) == len(wanted) == (3 if kind in ('resnet', 'wrn') else 4)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    count = sum(p.numel() for p in anytime.parameters())
    trained_count = sum(p.numel() for n, p in model.named_parameters() if 'adapters' not in n)
    assert count == trained_count


@pytest.mark.parametrize('kind', KINDS[:2])
@pytest.mark.parametrize('use', [0, 1])
def test_one_exit_is_a_plain_classifier_without_what_lies_behind(kind, use, tmp_path):
    model, path = trained(tmp_path, kind)
    single = network(kind, use=use)
    load_strictly(single, path, who='test')
    assert type(single) is type(model.student)
    with torch.no_grad():
        assert torch.equal(single(pixels()), expected(model, pixels())[use])
    assert not any(f'layer{use + 2}' in key or 'exits' in key for key in single.state_dict())
    assert not torch.equal(single.head.fc.weight, model.student.head.fc.weight)
    losses = single(*classification_batch(8, (32, 32)), mode='loss')
    assert losses['loss_cls'].isfinite(), 'and may be trained further'


def test_predictions_are_those_of_the_last_exit_or_of_the_mean(tmp_path):
    model, path = trained(tmp_path)
    scores = torch.stack([z.softmax(1) for z in expected(model, pixels())], 1)
    for use, wanted in (('last', scores[:, -1]), ('mean', scores.mean(1))):
        anytime = network(use=use)
        load_strictly(anytime, path, who='test')
        with torch.no_grad():
            samples = anytime(pixels(), None, mode='predict')
        assert isinstance(anytime, AnytimeClassifier)
        torch.testing.assert_close(torch.stack([x.pred_score for x in samples]), wanted)
        assert torch.equal(torch.stack([x.exit_scores for x in samples]), scores)
        assert [int(x.pred_label) for x in samples] == wanted.argmax(1).tolist()


def test_a_written_file_of_an_edited_network_is_read_again(tmp_path):
    _, path = trained(tmp_path)
    for use in ('last', 1):
        first, again = network(use=use), network(use=use)
        load_strictly(first, path, who='test')
        torch.save(first.state_dict(), tmp_path / 'own.pth')
        load_strictly(again, str(tmp_path / 'own.pth'), who='test')
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in first.state_dict().items())
        torch.testing.assert_close(copy.deepcopy(again)(pixels()), first(pixels()))


def test_plain_torch_reads_a_checkpoint_of_training(tmp_path):
    model, path = trained(tmp_path)
    anytime = network()
    anytime.load_state_dict(torch.load(path)['state_dict'])
    assert torch.equal(anytime(pixels())[0], expected(model, pixels())[0])


def test_the_exits_of_several_objectives_are_told_apart(tmp_path):
    entries = dict(byot=METHODS['byot'], multi=METHODS['multi'])
    model, path = trained(tmp_path, objectives=entries)
    for name in entries:
        anytime = network(objective=name)
        load_strictly(anytime, path, who='test')
        assert torch.equal(anytime(pixels())[1], expected(model, pixels(), name)[1])
    with pytest.raises(
        CheckpointError, match='the checkpoint has those of byot, multi; .*objective='
    ):
        load_strictly(network(), path, who='test')
    with pytest.raises(CheckpointError, match='those of byot, multi'):
        load_strictly(network(objective='other'), path, who='test')


def test_a_checkpoint_without_exits_is_refused(tmp_path):
    plain = build_model(tiny_classifier(4))
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    for use in ('last', 0):
        with pytest.raises(CheckpointError, match='but the checkpoint has none; train with BYOT'):
            load_strictly(network(use=use), str(tmp_path / 'plain.pth'), who='test')


def test_other_cuts_than_those_of_training_are_refused_by_their_weights(tmp_path):
    _, path = trained(tmp_path, cuts='backbone[1]')
    with pytest.raises(ValueError, match='missing in the file: exits.'):
        load_strictly(network(), path, who='test')
    load_strictly(network(cuts='backbone[1]'), path, who='test')


def test_some_backbones_cannot_end_early_and_some_hide_their_stages():
    for kind in KINDS[2:]:
        with pytest.raises(ValueError, match='does more between or behind its stages'):
            network(kind, use=0)
    with pytest.raises(ValueError, match=r'set out_indices of the backbone'):
        network('mmdet', changes=dict(backbone=dict(out_indices=(3,))))
    assert network('mmdet', changes=dict(backbone=dict(out_indices=(3,))), use=0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(use='best'), r"use must be one of .'last', 'mean', 0, 1., found 'best'"),
        (dict(use=2), r'found 2: all exits'),
        (dict(use=True), 'found True'),
        (dict(cuts=['backbone[1]', 'backbone[0]']), 'Exits: cuts must go deeper'),
        (dict(cuts='backbone.conv1'), 'Exits: the cut backbone.conv1 has the shape of a stage'),
        (dict(cuts='backbone[2]'), 'Exits: the cut .* shows the last stage'),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_other_models_are_refused():
    with pytest.raises(ValueError, match='Exits edits an mmkd.Classifier, found FasterRCNN'):
        MODELS.build(
            dict(type='mmkd.Edited', model=tiny_faster_rcnn(4), edits=[dict(type='mmkd.Exits')])
        )


def test_the_last_exits_loss_is_the_plain_one(tmp_path):
    model, path = trained(tmp_path)
    anytime = network()
    load_strictly(anytime, path, who='test')
    data = classification_batch(8, (32, 32))
    assert torch.equal(
        anytime(*data, mode='loss')['loss_cls'], model.student(*data, mode='loss')['loss_cls']
    )


def test_a_projector_stays_before_the_last_exit(tmp_path):
    projector = dict(projector=dict(type='mmkd.BottleneckProjector', out_channels=8))
    entries = dict(byot=dict(type='mmkd.MultiExit'))
    model, path = trained(tmp_path, objectives=entries, **projector)
    anytime = network(changes=projector)
    load_strictly(anytime, path, who='test')
    with torch.no_grad():
        assert torch.equal(anytime(pixels())[-1], model.student(pixels()))


@pytest.mark.parametrize('use', ['last', 0])
def test_it_is_exported(use):
    net = network(use=use)
    exported = torch.export.export(net, (pixels(),)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(pixels()), net(pixels()))
