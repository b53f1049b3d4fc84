"""Write some weights of a checkpoint into a file of their own, under names without the prefix.

python -m mmkd.checkpoint.extract FILE OUT --prefix student.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import OrderedDict

import torch

from mmkd.checkpoint import CheckpointError, atomic_file, dataset_meta_of, read_checkpoint
from mmkd.checkpoint.fitting import PIXELS
from mmkd.checkpoint.weights import below, weights_in


def extract(source: str, target: str, prefix: str) -> int:
    """Write the weights below ``prefix`` (all for ``''``) and the class names; returns how many.

    Mean and std of pixels in files of 2022 are left out. The file is read without running code in
    it.

    Raises:
        FileExistsError: there is a file of that name.
        CheckpointError: nothing begins with the prefix, or ``source`` is no checkpoint.
    """
    if os.path.exists(target):
        raise FileExistsError(f'{target} exists; choose another name.')
    checkpoint = read_checkpoint(source)
    state = below(weights_in(checkpoint), prefix, source)
    state = OrderedDict((key, value) for key, value in state.items() if not PIXELS.search(key))
    with atomic_file(target) as part:
        torch.save(
            dict(state_dict=state, meta=dict(dataset_meta=dataset_meta_of(checkpoint))), part
        )
    return len(state)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('file')
    parser.add_argument('out')
    parser.add_argument('--prefix', default='', help='in front of the weights wanted, taken off')
    args = parser.parse_args(arguments)
    try:
        count = extract(args.file, args.out, args.prefix)
    except (CheckpointError, OSError) as error:
        sys.exit(f'error: {error}')
    print(f'{count} weights written to {args.out}')


if __name__ == '__main__':
    main()
