"""Export of a student, with what it costs before and after."""

from __future__ import annotations

import copy
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor

from mmkd.analysis.complexity import latencies
from mmkd.checkpoint import atomic_file
from mmkd.deployment.networks import PARTS, Body, Deployed, deployed
from mmkd.deployment.onnx_file import check_installed, store_whole, write
from mmkd.deployment.scoring import Scorer
from mmkd.deployment.sources import deployed_model, rounded_model, whole_weights
from mmkd.deployment.standing_in import Run
from mmkd.engine.console.screen import current_screen
from mmkd.options import check_choice, check_number

#: of layers in the part of this name
BODY = ('backbone.', 'neck.', 'rpn_head.')
DEFAULT_SIZE = (256, 256)


class Written(NamedTuple):
    """A network, and the file that it became."""

    network: Deployed
    proto: Any
    run: Run


def export(
    config: Config,
    checkpoint: str,
    out: str,
    size: tuple[int, int] | None = None,
    part: str = 'whole',
    as_float: bool = False,
    bits: Sequence[int] = (),
    score: bool = False,
) -> list[str]:
    """Write a student as an ONNX file; returns lines on its size, speed, outputs and scores.

    Args:
        config (Config): of the run, or of the student alone.
        checkpoint (str): its weights.
        out (str): the file.
        size (tuple[int, int] | None): height and width of an image; None: 256 x 256, or of the
            first test image with ``score``.
        part (str): see :func:`~mmkd.deployment.networks.deployed`.
        as_float (bool): do not look for whole numbers.
        bits (Sequence[int]): further files, ``<out>_8bit.onnx``, whose weights are rounded to so
            many bits after training.
        score (bool): also test the student and each file on the config's test set.

    Raises:
        ImportError: the extra ``onnx`` is not installed.
        ValueError: options out of range; a network that cannot be exported; weights that are not
            those of the edit.
    """
    check_choice('export', '--part', part, PARTS)
    for pixels in size or ():
        check_number('export', '--size', pixels, 1, whole=True)
    for number in bits:
        check_number('export', '--bits', number, 2, 16, whole=True)
    check_installed()
    with tempfile.TemporaryDirectory() as work_dir:
        scorer = Scorer(config, checkpoint, work_dir) if score else None
        size = size or (scorer.size() if scorer else DEFAULT_SIZE)
        files, lines = _written(config, checkpoint, size, part, as_float, bits)
        table, how = _measured(files, size)
        for name, told in _scored(scorer, files, size) if scorer else ():
            table[name] += f'   {told}'
    paths = {name: _path(out, name) for name in files}
    if 'quantised' in files:  # the float32 one was for comparison
        paths = {'quantised': out}
    for name, path in paths.items():
        with atomic_file(path) as temporary, open(temporary, 'wb') as file:
            file.write(files[name].proto.SerializeToString())
    places = [f'{name}: {os.path.abspath(path)}' for name, path in paths.items()]
    return [*lines, *table.values(), how, *places]


def _path(out: str, name: str) -> str:
    stem, ending = os.path.splitext(out)
    return out if name == 'float32' else f'{stem}_{name.replace(" bits", "bit")}{ending}'


def _written(
    config: Config,
    checkpoint: str,
    size: tuple[int, int],
    part: str,
    as_float: bool,
    bits: Sequence[int],
) -> tuple[dict[str, Written], list[str]]:
    """The files by name, float32 first, and what was stored as whole numbers."""
    model = deployed_model(config, checkpoint)
    network = deployed(model, part)
    trained = {} if as_float else whole_weights(config, checkpoint, model)
    if trained and bits:
        raise ValueError(
            'export: --bits rounds weights that were trained in float, but those of this student '
            'were trained with few bits. Leave --bits out.'
        )
    lines: list[str] = []
    files = {'float32': _file(network, write(network, size))}
    several = [('quantised', network, trained)] * bool(trained)
    for number in bits:
        rounded, weights = rounded_model(model, number)
        several.append((f'{number} bits', deployed(rounded, part), weights))
    for name, one, weights in several:
        if part == 'body':
            weights = {key: x for key, x in weights.items() if key.startswith(BODY)}
        same = one is network
        proto = copy.deepcopy(files['float32'].proto) if same else write(one, size)
        layers = dict(one.model.named_modules())
        plain = {key: layers[key].weight.detach() for key in weights}
        missed = store_whole(proto, plain, weights)
        files[name] = _file(one, proto)
        lines.append(f'{name}: ' * bool(bits) + _told(weights, missed))
    return files, lines


def _told(weights: dict, missed: list[str]) -> str:
    kept = {name: whole for name, whole in weights.items() if name not in missed}
    count = Counter((whole.bits, whole.stored) for whole in kept.values())
    parts = [f'{n} weights of {b} bits as int{s}' for (b, s), n in sorted(count.items())]
    rest = f'; not as whole numbers: {", ".join(missed)}' if missed else ''
    return f'{", ".join(parts) or "no weight as whole numbers"}{rest}'


def _measured(files: dict[str, Written], size: tuple[int, int]) -> tuple[dict[str, str], str]:
    """Size, latency and difference from PyTorch of each file, in turns on this machine; and how."""
    first = files['float32'].network
    image = torch.rand(1, first.channels, *size, generator=torch.Generator().manual_seed(0)) * 255
    runs: dict[str, Callable[[], Any]] = {'PyTorch': lambda: _given(first, image)}
    begins = BODY if isinstance(first, Body) else ''
    state = first.model.state_dict().items()
    sizes = {'PyTorch': sum(x.nbytes for key, x in state if key.startswith(begins))}
    gaps = {}
    for name, (network, proto, run) in files.items():
        runs[name] = lambda run=run: run(image)
        pairs = zip(run(image), _given(network, image), strict=True)
        gaps[name] = max(float((a - b).abs().max()) for a, b in pairs)
        sizes[name] = proto.ByteSize()
    seconds, rounds = latencies(runs)
    lines = {
        name: f'{name:10s} {count / 1024:10,.1f} KiB {1e3 * seconds[name]:9.2f} ms'
        for name, count in sizes.items()
    }
    for name, gap in gaps.items():
        lines[name] += f'   outputs differ from PyTorch by at most {gap:.2g}'
    threads = f'{torch.get_num_threads()} threads'
    how = f'(median of {rounds} images of {size[0]} x {size[1]}, ONNX Runtime, {threads})'
    return lines, how


def _given(network: Deployed, image: Tensor) -> list[Tensor]:
    with torch.no_grad():
        found = network(image)
    return [found] if isinstance(found, Tensor) else list(found)


def _scored(
    scorer: Scorer, files: dict[str, Written], size: tuple[int, int]
) -> Iterator[tuple[str, str]]:
    """What the student and each file score, by name."""
    show = current_screen().show
    show(0, len(files) + 1, 'scoring PyTorch')
    yield 'PyTorch', scorer.own()
    for number, (name, (network, _, run)) in enumerate(files.items(), 1):
        show(number, len(files) + 1, f'scoring {name}')
        yield name, scorer.of(network, run, size)


def _file(network: Deployed, proto: Any) -> Written:
    return Written(network, proto, _session(proto))


def _session(proto: Any) -> Run:
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
    return lambda image: [torch.from_numpy(x) for x in session.run(None, {'pixels': image.numpy()})]
