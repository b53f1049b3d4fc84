"""Export of a student, with what it costs before and after."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config

from mmkd.analysis.complexity import latencies
from mmkd.checkpoint import atomic_file
from mmkd.deployment.networks import PARTS, Deployed, deployed
from mmkd.deployment.onnx_file import check_installed, store_whole, write
from mmkd.deployment.sources import deployed_model, whole_weights
from mmkd.options import check_choice, check_number

#: of layers in the part of this name
BODY = ('backbone.', 'neck.', 'rpn_head.')


def export(
    config: Config,
    checkpoint: str,
    out: str,
    size: tuple[int, int],
    part: str = 'whole',
    as_float: bool = False,
) -> list[str]:
    """Write a student as an ONNX file; returns lines on its size, speed and outputs.

    Args:
        config (Config): of the run, or of the student alone.
        checkpoint (str): its weights.
        out (str): the file.
        size (tuple[int, int]): height and width of an image.
        part (str): see :func:`~mmkd.deployment.networks.deployed`.
        as_float (bool): do not look for whole numbers.

    Raises:
        ImportError: the extra ``onnx`` is not installed.
        ValueError: options out of range; a network that cannot be exported; weights that are not
            those of the edit.
    """
    check_choice('export', '--part', part, PARTS)
    for pixels in size:
        check_number('export', '--size', pixels, 1, whole=True)
    check_installed()
    model = deployed_model(config, checkpoint)
    network = deployed(model, part)
    weights = {} if as_float else whole_weights(config, checkpoint, model)
    if part == 'body':
        weights = {name: x for name, x in weights.items() if name.startswith(BODY)}
    plain = {
        name: module.weight.detach() for name, module in model.named_modules() if name in weights
    }
    files = {'float32': write(network, size)}
    lines = []
    if weights:
        files['quantised'] = stored = copy.deepcopy(files['float32'])
        missed = store_whole(stored, plain, weights)
        lines = [_told(weights, missed)]
    last = list(files)[-1]
    with atomic_file(out) as path, open(path, 'wb') as file:
        file.write(files[last].SerializeToString())
    return [*lines, *_measured(files, network, size), f'{last}: {os.path.abspath(out)}']


def _told(weights: dict, missed: list[str]) -> str:
    kept = {name: whole for name, whole in weights.items() if name not in missed}
    count = Counter((whole.bits, whole.stored) for whole in kept.values())
    parts = [f'{n} weights of {b} bits as int{s}' for (b, s), n in sorted(count.items())]
    rest = f'; not as whole numbers: {", ".join(missed)}' if missed else ''
    return f'{", ".join(parts) or "no weight as whole numbers"}{rest}'


def _measured(files: dict[str, Any], network: Deployed, size: tuple[int, int]) -> list[str]:
    """Size, latency and difference from PyTorch of each file, in turns on this machine."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        wanted = network(image)
    wanted = [wanted] if isinstance(wanted, torch.Tensor) else list(wanted)
    runs: dict[str, Callable[[], Any]] = {}
    gaps = {}
    for name, proto in files.items():
        run = _session(proto)
        runs[name] = lambda run=run: run(image)
        found = [torch.from_numpy(x) for x in run(image)]
        pairs = zip(found, wanted, strict=True)
        gaps[name] = max(float((a - b).abs().max()) for a, b in pairs)
    seconds, rounds = latencies(runs)
    lines = [
        f'{name:10s} {proto.ByteSize() / 1024:10,.1f} KiB {1e3 * seconds[name]:9.2f} ms   outputs '
        f'differ from PyTorch by at most {gaps[name]:.2g}'
        for name, proto in files.items()
    ]
    threads = f'{torch.get_num_threads()} threads'
    return [
        *lines,
        f'(median of {rounds} images of {size[0]} x {size[1]}, ONNX Runtime, {threads})',
    ]


def _session(proto: Any) -> Callable[[torch.Tensor], list]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    rounded = any(node.op_type == 'QuantizeLinear' for node in proto.graph.node)
    if not rounded:  # weights alone: they become float32 once, not with every image
        options.add_session_config_entry('session.disable_quant_qdq', '1')
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    return lambda image: session.run(None, {'pixels': image.numpy()})
