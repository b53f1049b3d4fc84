"""Students that begin with their teacher's neck and head, by mmengine's own ``init_cfg``."""

import pytest
import torch
from mmengine.registry import init_default_scope
from test_configs import CONFIGS

from mmkd.config import load_config
from mmkd.registry import MODELS
from mmkd.teacher import build_model
from mmkd.testing import shrink

INHERITED = [path for path in CONFIGS if "prefix='neck'" in path.read_text()]


def test_published_so():
    assert [path.stem for path in INHERITED] == [
        'fgd_frcnn_r101_r50',
        'fgd_retinanet_r101_r50',
        'mgd_retinanet_r101_r50',
    ]


@pytest.mark.parametrize('path', INHERITED, ids=lambda path: path.stem)
def test_the_student_begins_with_all_but_the_backbone(path, tmp_path):
    config = load_config(str(path))
    init_default_scope(config.default_scope)
    model, file = config.model, tmp_path / 'teacher.pth'
    parts = {k: v.init_cfg for k, v in model.student.items() if k in PARTS and v.get('init_cfg')}
    assert all(v.checkpoint == model.teacher.checkpoint for v in parts.values())

    judge = shrink(load_config(model.teacher.config).model)
    teacher = build_model(judge)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.normal_()
    torch.save(dict(state_dict=teacher.state_dict()), file)
    model.teacher.update(config=judge, checkpoint=str(file))
    model.student = shrink(model.student)
    for name, init in parts.items():
        model.student[name].init_cfg = dict(init, checkpoint=str(file))

    distiller = MODELS.build(model)
    distiller.init_weights()
    own, wanted = distiller.student.state_dict(), teacher.state_dict()
    rest = {k for k in own if not k.startswith('backbone.')}
    assert rest and {k.partition('.')[0] for k in rest} == set(parts)
    assert all(torch.equal(own[k], wanted[k]) for k in rest)
    assert not torch.equal(own['backbone.conv1.weight'], wanted['backbone.conv1.weight'])


PARTS = ('neck', 'rpn_head', 'roi_head', 'bbox_head')
