"""Onnx: class scores of a file that onnxruntime runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch

from mmkd.encoders.encoder import IMAGENET
from mmkd.names import no_file
from mmkd.options import check_normalisation
from mmkd.teachers.function import Function
from mmkd.teachers.kinds import kind

#: providers of onnxruntime that choose one of several GPUs
ON_GPUS = ('CUDAExecutionProvider', 'TensorrtExecutionProvider', 'ROCMExecutionProvider')


@kind
class Onnx(Function):
    """A network in an ONNX file as teacher, of which its class scores are known and nothing else.

    It takes float32 RGB (N, 3, H, W), normalised by ``mean`` and ``std``. Where the file fixes N,
    the images of a batch are run that many at a time; where it fixes H and W, those of a classifier
    are resized.

    Args:
        file (str): the ``.onnx`` file.
        mean, std (list[float]): of RGB from 0 to 255; (0, 0, 0) and (255, 255, 255) give 0 to 1.
        output (str | None): which output has the scores; None: the first.
        logits (bool): it gives logits, of which the softmax is taken; else probabilities.
        hard, budget: see :class:`~mmkd.teachers.function.Function`.

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: no such file.
        ValueError: a file that onnxruntime cannot read, or with several inputs; no such output;
            mean or std that are not three numbers, or a std of 0; images of a segmentor of another
            size than the file's; see Function.
    """

    def __init__(
        self,
        file: str,
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
        output: str | None = None,
        logits: bool = False,
        hard: bool = False,
        budget: int | None = None,
    ) -> None:
        self.session = _session(file)
        if len(self.session.get_inputs()) != 1:
            names = ', '.join(one.name for one in self.session.get_inputs())
            raise ValueError(f'Onnx: {file} has the inputs {names}; one of images is wanted.')
        outputs = [one.name for one in self.session.get_outputs()]
        if output is not None and output not in outputs:
            raise ValueError(f'Onnx: {file} has no output {output!r}, but {", ".join(outputs)}.')
        if logits and hard:
            raise ValueError('Onnx: logits=True makes probabilities and hard=True takes labels.')
        self.logits, self.output = logits, output or outputs[0]
        self.pixels_of = [np.array(x) for x in check_normalisation('Onnx', mean, std)]
        super().__init__(self.answer, hard, budget)
        self.name = file

    def answer(self, images: np.ndarray) -> np.ndarray:
        """uint8 RGB (N, H, W, 3) -> probabilities, or labels."""
        given = self.session.get_inputs()[0]
        count, _, *size = given.shape
        fixed = all(isinstance(side, int) for side in size)
        if fixed and tuple(size) != images.shape[1:3]:
            images = self._resized(images, size)
        mean, std = self.pixels_of
        inputs = ((images - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
        step = count if isinstance(count, int) else len(inputs)
        found: list[Any] = []
        for start in range(0, len(inputs), step):
            part = inputs[start : start + step]
            missing = step - len(part)
            padded = np.concatenate([part, part[:1].repeat(missing, 0)]) if missing else part
            rows = self.session.run([self.output], {given.name: padded})[0]
            found.append(rows[: len(part)])
        scores = np.concatenate(found)
        return _softmax(scores) if self.logits else scores

    def _resized(self, images: np.ndarray, size: Sequence[int]) -> np.ndarray:
        if self.by_pixel:
            raise ValueError(
                f'Onnx: {self.name} takes images of {size[0]} x {size[1]} pixels, but the batch '
                f'has {images.shape[1]} x {images.shape[2]}. Let the pipeline crop to that size, '
                'or export the network with sides of any length.'
            )
        return np.stack([mmcv.imresize(x, (size[1], size[0])) for x in images])


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _session(file: str) -> Any:
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'Onnx: {no_file(file, ".onnx")}')
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            f"Onnx: onnxruntime cannot be imported ({error}). Run pip install 'mmkd[onnx]'."
        ) from None
    try:
        providers = _on_own_gpu(onnxruntime.get_available_providers())
        return onnxruntime.InferenceSession(str(path), providers=providers)
    except Exception as error:  # noqa: BLE001  errors of onnxruntime have no common class
        reason = ' '.join(str(error).split())
        raise ValueError(f'Onnx: onnxruntime cannot read {file} ({reason:.200}).') from None


def _on_own_gpu(names: Sequence[str]) -> list[Any]:
    """Providers of onnxruntime, which all processes of a launch would run on the first GPU."""
    if not torch.cuda.is_available():
        return list(names)
    own = {'device_id': torch.cuda.current_device()}
    return [(name, own) if name in ON_GPUS else name for name in names]
