"""The one network that a maker works on, and the files that it writes."""

import pytest
import torch

from mmkd.chain import Product
from mmkd.config import load_config
from mmkd.makers.networks import given_teacher, load_network, only_network, write_network
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier


def test_one_network():
    one = Product('a.py', 'a.pth', '')
    assert only_network('Bake', dict(student=one)) is one
    for given, found in (({}, 'none'), (dict(student=one, teacher=one), 'student, teacher')):
        with pytest.raises(ValueError, match=f'Bake needs one network: .* found {found}'):
            only_network('Bake', given)


def test_a_teacher():
    one, other = Product('a.py', 'a.pth', ''), Product('b.py', 'b.pth', '')
    assert given_teacher('Bake', dict(student=other, teacher=one)) is one
    with pytest.raises(ValueError, match='Bake needs a judge: teacher= of the stage'):
        given_teacher('Bake', dict(student=other), 'judge')


def test_written_and_read_again(tmp_path):
    (tmp_path / 'plain.py').write_text(f'model = {tiny_classifier(4)!r}\n')
    model = build_model(tiny_classifier(4))
    config = load_config(str(tmp_path / 'plain.py'))
    product = write_network(str(tmp_path), 'copy', config, model.state_dict())
    found, again = load_network('Bake', dict(student=product))
    assert found.model == config.model
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
