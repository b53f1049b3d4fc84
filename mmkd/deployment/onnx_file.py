"""Writes ONNX files, and stores weights in them as whole numbers of few bits."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.adapters.learned_quant import ClippedReLU
from mmkd.borrowed import replaced
from mmkd.checkpoint.checkpoint_error import first_line
from mmkd.deployment.networks import Deployed
from mmkd.deployment.whole_numbers import Whole, folded

#: the first with weights of four bits
OPSET = 21
NEEDED = ('onnx', 'onnxscript', 'onnxruntime')


def check_installed() -> None:
    """Raise ImportError for libraries of the extra ``onnx`` that are missing."""
    missing = []
    for name in NEEDED:
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ImportError(
            f"export needs {', '.join(missing)}, not installed here: pip install 'mmkd[onnx]'."
        )


def write(network: Deployed, size: tuple[int, int]) -> Any:
    """A network as an ONNX model for one image, in float32, with folded BatchNorms.

    Args:
        size (tuple[int, int]): height and width.

    Returns:
        onnx.ModelProto: activations that are rounded have QuantizeLinear and DequantizeLinear.

    Raises:
        ValueError: an operator that ONNX or its exporter does not have.
    """
    image = torch.rand(1, network.channels, *size) * 255
    kind = type(network.model).__name__
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)  # of torchvision, which is not needed
    with _rounding_nodes(network), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        try:
            # First to a program: mmdet takes another branch while torch.onnx itself traces.
            program = torch.export.export(network, (image,))
            with contextlib.redirect_stdout(io.StringIO()):
                names = list(network.names) or None
                found = torch.onnx.export(
                    program,
                    (),
                    input_names=['pixels'],
                    output_names=names,
                    opset_version=OPSET,
                    dynamo=True,
                )
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise ValueError(
                f'{kind} has an operator that cannot be exported ({type(cause).__name__}: '
                f'{first_line(cause)}). Take --part body, or MMDeploy (docs/deployment.md).'
            ) from error
    proto = found.model_proto
    for part in (*proto.graph.node, *proto.graph.value_info, proto.graph):
        del part.metadata_props[:]  # where in Python each came from
    return proto


class _RoundedReLU(nn.Module):
    """A clipped ReLU as two nodes of ONNX."""

    def __init__(self, bits: int, most: float) -> None:
        super().__init__()
        self.most, steps = most, 2**bits - 1
        self.kind = torch.uint8 if bits <= 8 else torch.uint16
        self.register_buffer('step', torch.tensor(most / steps))
        self.register_buffer('zero', torch.zeros((), dtype=self.kind))

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(0.0, self.most)
        symbolic, given = torch.onnx.ops.symbolic, (self.step, self.zero)
        how = dict(shape=x.shape, version=OPSET)
        number = symbolic('QuantizeLinear', (x, *given), dtype=self.kind, **how)
        return symbolic('DequantizeLinear', (number, *given), dtype=x.dtype, **how)


@contextlib.contextmanager
def _rounding_nodes(network: nn.Module) -> Iterator[None]:
    """While it lasts, activations are rounded by nodes of ONNX."""
    with contextlib.ExitStack() as places:
        for module in network.modules():
            if not isinstance(module, ClippedReLU):
                continue
            clip = module.clip[0]
            if clip.learns and not int(clip.passes):
                continue  # never trained: a plain ReLU
            nodes = _RoundedReLU(clip.bits, float(clip.most.detach()))
            places.enter_context(replaced(module, {'clip': (nodes,)}))
        yield


def store_whole(proto: Any, plain: Mapping[str, Tensor], weights: Mapping[str, Whole]) -> list[str]:
    """Store weights of an ONNX model as whole numbers behind DequantizeLinear, in place.

    Args:
        proto (onnx.ModelProto): of :func:`write`.
        plain (Mapping[str, Tensor]): the weights of the network, by the names of layers.
        weights (Mapping[str, Whole]): those to store, likewise.

    Returns:
        list[str]: layers whose weight is not in the file as such, and stays in float32.
    """
    import ml_dtypes
    import numpy as np
    from onnx import helper, numpy_helper

    kinds = {4: ml_dtypes.int4, 8: np.int8, 16: np.int16}
    known = {tensor.name: tensor for tensor in proto.graph.initializer}
    missed, nodes = [], []
    for layer, whole in weights.items():
        name = f'model.{layer}.weight'
        tensor = known.get(name)
        now = None if tensor is None else torch.from_numpy(numpy_helper.to_array(tensor).copy())
        fits = now is not None and now.shape == plain[layer].shape
        found = folded(whole, plain[layer], now) if fits else None
        if found is None:
            missed.append(layer)
            continue
        numbers = found.numbers.numpy().astype(np.int16).astype(kinds[found.stored])
        proto.graph.initializer.remove(tensor)
        own = f'{name}.numbers', f'{name}.step'
        proto.graph.initializer.append(numpy_helper.from_array(numbers, own[0]))
        step = found.step.float().numpy()
        proto.graph.initializer.append(numpy_helper.from_array(step, own[1]))
        nodes.append(helper.make_node('DequantizeLinear', [*own], [name], axis=0))
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])
    return missed
