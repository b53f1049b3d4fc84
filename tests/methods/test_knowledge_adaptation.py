"""KnowledgeAdaptation: targets of trusted images, and KD for the others."""

import json

import pytest
import torch

from mmkd.functional.logit_distances import soft_kl
from mmkd.methods.knowledge_adaptation import KnowledgeAdaptation, adapted_target
from mmkd.structures import ClassSample
from mmkd.tap import Side, Trace, parse_taps

P = torch.tensor([[0.7, 0.2, 0.1]])
ZS = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]])
ZT = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])


def test_values_of_the_sheet():
    trusted = torch.tensor([True])
    torch.testing.assert_close(adapted_target(P, trusted, 0.3), torch.tensor([[0.91, 0.06, 0.03]]))
    assert torch.equal(adapted_target(P, trusted, 1.0), P)
    assert adapted_target(P, trusted, 0.0).tolist() == [[1, 0, 0]]
    assert torch.equal(adapted_target(P, ~trusted, 0.3), P)
    assert float(adapted_target(P, trusted, 0.42).sum()) == pytest.approx(1)


def step(objective, paths=('a.png', 'b.png')):
    objective.student_taps = objective.teacher_taps = parse_taps('head.fc')
    net = torch.nn.Module()
    sides = [Side(net, torch.zeros(2, 3, 4, 4), {'head.fc': [[z]]}) for z in (ZS, ZT)]
    samples = [ClassSample(metainfo=dict(img_path=path)) for path in paths]
    return objective(Trace(sides[0].inputs, samples, *sides))


@pytest.fixture
def file(tmp_path):
    (tmp_path / 'trusted.json').write_text(json.dumps(dict(images=['b.png'])))
    return str(tmp_path / 'trusted.json')


def test_without_trusted_images_it_is_kd_bit_for_bit(file):
    wanted = soft_kl(ZS, ZT, 4.0).mean()
    for objective, paths in (
        (KnowledgeAdaptation(), 'ab'),
        (KnowledgeAdaptation(trusted=file), 'xy'),
    ):
        found = step(objective, paths)
        assert torch.equal(found['loss'], wanted) and found['trusted'] == 0


def test_a_trusted_image_has_the_mixed_target(file):
    found = step(KnowledgeAdaptation(trusted=file, lam=0.25, tau=2.0))
    p = (ZT[1] / 2).softmax(0)
    target = 0.25 * p + 0.75 * torch.tensor([0.0, 0.0, 1.0])
    kl = (target * (target.log() - (ZS[1] / 2).log_softmax(0))).sum() * 4
    wanted = (soft_kl(ZS[:1], ZT[:1], 2.0)[0] + kl) / 2
    torch.testing.assert_close(found['loss'], wanted)
    assert found['trusted'] == 1


def test_a_hard_label_alone_has_a_finite_loss(file):
    found = step(KnowledgeAdaptation(trusted=file, lam=0.0))
    assert bool(found['loss'].isfinite())


class Images(list):
    def get_data_info(self, index):
        return dict(img_path=self[index])


def test_bad_input(file, tmp_path):
    KnowledgeAdaptation(trusted=file).check_dataset(Images(['b.png']))
    KnowledgeAdaptation().check_dataset(Images([]))
    with pytest.raises(ValueError, match='none of the 1 images in .* is among the 2'):
        KnowledgeAdaptation(trusted=file).check_dataset(Images(['c.png', 'd.png']))
    with pytest.raises(FileNotFoundError, match='trusted: there is no file'):
        KnowledgeAdaptation(trusted='nowhere.json').check_dataset(Images(['b.png']))
    with pytest.raises(ValueError, match='lam must be a finite number from 0 to 1'):
        KnowledgeAdaptation(lam=1.5)
    with pytest.raises(ValueError, match='temperature tau'):
        KnowledgeAdaptation(tau=0)
