"""inspect_mmcv.py VERSION: which operators the installed mmcv has, in one word.

absent    another version of mmcv, or none, is installed
none      it is installed without compiled operators
compiled  its operators work with the installed torch, on the GPU where torch sees one
broken    its operators do not load or do not work here; the reason goes to stderr

With --toolkit: 'missing' where torch sees a GPU and nothing could compile for it, else 'enough'.
mmcv itself is not imported, only its extension: its other requirements may not be there yet.
"""

import importlib.machinery
import importlib.metadata
import importlib.util
import sys
from pathlib import Path


def extension(distribution: importlib.metadata.Distribution) -> Path | None:
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    for file in distribution.files or ():
        if (
            file.parent.name == 'mmcv'
            and file.name.startswith('_ext.')
            and str(file).endswith(suffixes)
        ):
            return Path(distribution.locate_file(file))
    return None


def try_operators(path: Path) -> None:
    """Non-maximum suppression of two equal boxes."""
    import torch  # an extension finds its libraries only after torch

    spec = importlib.util.spec_from_file_location('mmcv._ext', path)
    operators = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(operators)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]], device=device)
    scores = torch.tensor([0.9, 0.8], device=device)
    kept = operators.nms(boxes, scores, iou_threshold=0.5, offset=0)
    assert kept.tolist() == [0], f'nms keeps {kept.tolist()} of two equal boxes'


def state(version: str) -> str:
    try:
        distribution = importlib.metadata.distribution('onedl-mmcv')
    except importlib.metadata.PackageNotFoundError:
        return 'absent'
    if distribution.version != version:
        return 'absent'
    path = extension(distribution)
    if path is None:
        return 'none'
    try:
        try_operators(path)
    except Exception as error:  # compiled for another torch or without CUDA: any way to fail
        print(f'{type(error).__name__}: {error}', file=sys.stderr)
        return 'broken'
    return 'compiled'


def toolkit() -> str:
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    return 'missing' if torch.cuda.is_available() and CUDA_HOME is None else 'enough'


if __name__ == '__main__':
    print(toolkit() if sys.argv[1] == '--toolkit' else state(sys.argv[1]))
