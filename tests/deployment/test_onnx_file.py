"""Weights of an ONNX file as whole numbers."""

import onnx
import pytest
import torch
from deployment_toys import EDIT, saved

from mmkd.deployment.networks import deployed
from mmkd.deployment.onnx_file import check_installed, store_whole, write
from mmkd.deployment.sources import deployed_model, whole_weights
from mmkd.testing import tiny_classifier


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'onnxscript', None)
    with pytest.raises(
        ImportError, match=r"export needs .*onnxscript.*: pip install 'mmkd\[onnx\]'"
    ):
        check_installed()


def test_bits_in_the_file(tmp_path):
    file = str(tmp_path / 'x.pth')
    config, _ = saved(file, tiny_classifier(4), EDIT)
    model = deployed_model(config, file)
    whole = whole_weights(config, file, model)
    plain = {name: model.get_submodule(name).weight.detach() for name in whole}
    proto = write(deployed(model), (16, 16))
    before = proto.ByteSize()
    assert store_whole(proto, plain, whole) == []
    onnx.checker.check_model(proto)
    kinds = [x.data_type for x in proto.graph.initializer]
    assert kinds.count(onnx.TensorProto.INT4) == 8 and kinds.count(onnx.TensorProto.INT8) == 2
    assert proto.ByteSize() < before
    other = {name: torch.randn_like(x) for name, x in plain.items()}
    assert set(store_whole(write(deployed(model), (16, 16)), other, whole)) == set(whole)


def test_an_operator_that_cannot_be_exported(tmp_path):
    config, model = saved(str(tmp_path / 'x.pth'), tiny_classifier(4))

    def forward(x):
        return torch.from_numpy(x.numpy() * 2)

    model.head.forward = forward
    with pytest.raises(ValueError, match='Classifier has an operator that cannot be exported'):
        write(deployed(model), (16, 16))
