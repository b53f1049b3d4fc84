"""The code of docs/deployment.md exports students, and what it exports gives their predictions."""

import re
from types import ModuleType

import pytest
import torch
from messages import ROOT
from mmengine.config import Config

from mmkd.teacher import build_model
from mmkd.testing import detection_batch, tiny_pspnet, tiny_retinanet

PAGE = (ROOT / 'docs' / 'deployment.md').read_text()
SIZE = (64, 96)


@pytest.fixture(scope='module')
def deploy():
    (code,) = re.findall(r'^```python\n# file: deploy\.py\n(.*?)^```$', PAGE, re.M | re.S)
    module = ModuleType('deploy')
    exec(compile(code, 'deploy.py', 'exec'), module.__dict__)
    return module


def student(model, scope):
    torch.manual_seed(0)
    return build_model(Config(dict(model=model, default_scope=scope)))


def raw_image():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (1, 3, *SIZE), generator=generator).float()


def exported(module):
    """The module as a program of PyTorch's core operators, all that torch.onnx has to translate."""
    program = torch.export.export(module, (torch.zeros(1, 3, *SIZE),)).run_decompositions()
    calls = [node.target for node in program.graph.nodes if node.op == 'call_function']
    foreign = {str(call) for call in calls if not str(call).startswith(('aten.', '<built-in'))}
    assert not foreign
    return program.module()


@torch.no_grad()
def test_exported_segmentor_gives_the_logits_of_the_student(deploy):
    model = student(tiny_pspnet(8), 'mmseg')
    image = raw_image()
    logits = exported(deploy.Segmentor(model))(image)
    data = model.data_preprocessor(dict(inputs=[image[0].flip(0)], data_samples=None))
    torch.testing.assert_close(logits, model.predict(data['inputs'])[0].seg_logits.data[None])


@torch.no_grad()
def test_exported_detector_gives_the_boxes_and_scores_of_the_student(deploy):
    model = student(tiny_retinanet(8), 'mmdet')
    image = raw_image()
    boxes, scores = exported(deploy.Detector(model))(image)
    _, samples = detection_batch(1, size=SIZE)
    data = dict(inputs=[image[0].flip(0)], data_samples=samples)
    data = model.data_preprocessor(data)
    model.bbox_head.test_cfg.update(score_thr=0.0)
    found = model.predict(data['inputs'], data['data_samples'], rescale=False)[0].pred_instances
    assert len(found) > 4
    values = scores[0, :, :].T[found.labels]  # (detections, anchors)
    same = (boxes[0] - found.bboxes[:, None]).abs().amax(-1) < 1e-3
    same &= (values - found.scores[:, None]).abs() < 1e-5
    assert same.any(1).all()
