"""InformationFlow: the divergence against loops, layers, and the critical period."""

import itertools
import math

import pytest
from row_toys import A, B, cosine, on_two_layers, random_rows, slow_probabilities, two_layers

from mmkd.distiller import Distiller
from mmkd.methods.information_flow import InformationFlow, flow_divergence
from mmkd.schedule import Progress
from mmkd.testing import classification_batch, tiny_classifier


def test_worked_number():
    """0.0452683 with 1e-6 under the root, as in the code."""
    assert float(flow_divergence(A, B)) == pytest.approx(0.0452609, abs=1e-6)


def student_t(u, v):
    return 1 / (1 + float((u - v).norm()))


def test_transcription():
    s, t = random_rows()
    pairs = list(itertools.product(range(len(s)), repeat=2))
    wanted = 0.0
    for kernel in (cosine, student_t):
        p, q = (slow_probabilities(x, kernel) for x in (t, s))
        wanted += sum(
            (p[i][j] - q[i][j]) * (math.log(p[i][j]) - math.log(q[i][j])) for i, j in pairs
        )
    assert float(flow_divergence(s, t)) == pytest.approx(wanted / len(pairs))
    assert float(flow_divergence(t, s)) == pytest.approx(wanted / len(pairs)), 'it is symmetric'


def test_early_and_last_layer():
    flows = [float(flow_divergence(*pair)) for pair in two_layers()]
    found = on_two_layers(InformationFlow(['a', 'b'], early=7))
    assert found['loss_last'] == pytest.approx(flows[1], rel=1e-4)
    assert found['loss_early'] == pytest.approx(7 * flows[0], rel=1e-4)
    assert set(on_two_layers(InformationFlow(['a', 'b'], early=0))) == {'loss_last'}


def test_the_critical_period_ends():
    objective = InformationFlow(epochs=10)
    weights = [objective.early_weight(Progress(i, 200)) for i in (0, 19, 20, 199)]
    assert weights == pytest.approx([100, 100, 70, 100 * 0.7**9])
    assert InformationFlow(decay=1.0).early_weight(Progress(199, 200)) == 100


def test_pairs_of_layers(tmp_path):
    (s1, s2), (t1, t2) = zip(*two_layers(), strict=True)
    crossed = on_two_layers(InformationFlow(['a', 'b'], pairs=[(0, 1), (1, 0)], early=1))
    assert crossed['loss_early'] == pytest.approx(float(flow_divergence(s1, t2)), rel=1e-4)
    assert crossed['loss_last'] == pytest.approx(float(flow_divergence(s2, t1)), rel=1e-4)
    same = on_two_layers(InformationFlow(['a', 'b'], pairs=[(0, 0), (1, 1)]))
    assert same == on_two_layers(InformationFlow(['a', 'b']))
    file = tmp_path / 'pairs.json'
    file.write_text('{"pairs": [[0, 1], [1, 1]]}')
    assert InformationFlow(['a', 'b'], pairs=str(file)).pairs == [(0, 1), (1, 1)]


def test_networks_of_unequal_depth():
    """Of which pairs by position cannot be made."""
    deep = dict(config=tiny_classifier(8, kind='vgg'), checkpoint='random')
    options = dict(type='mmkd.InformationFlow')
    with pytest.raises(ValueError, match='pairs layers by position'):
        Distiller(tiny_classifier(4), dict(flow=options), deep)
    options['pairs'] = [(0, 1), (1, 2), (3, 4)]
    distiller = Distiller(tiny_classifier(4), dict(flow=options), deep).train()
    assert distiller.loss(*classification_batch())['kd.flow.loss_early'] > 0
    with pytest.raises(ValueError, match=r'no pair \(3, 5\): the student shows 4 layers, .* 5'):
        Distiller(tiny_classifier(4), dict(flow=dict(options, pairs=[(3, 5)])), deep)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: InformationFlow(decay=0), 'decay must be a finite number above 0 and at most 1'),
        (lambda: InformationFlow(epochs=0), 'epochs must be'),
        (lambda: InformationFlow(pairs=[(0, 1), (0, 1)]), 'different pairs'),
        (lambda: InformationFlow(pairs=[(0, 1, 2)]), 'different pairs'),
        (lambda: InformationFlow(pairs=[]), 'different pairs'),
        (lambda: InformationFlow(pairs='nowhere.json'), 'is no result of a search'),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
