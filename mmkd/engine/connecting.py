"""Connecting the processes of a launch, by nccl on GPUs and by gloo without, and their groups."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process
from mmengine.logging import print_log
from torch import distributed as torch_dist

from mmkd import groups
from mmkd.checkpoint.newest import checkpoint_of, iteration_of
from mmkd.teachers import groups_of


def connect(launcher: str, env_cfg: Mapping[str, Any]) -> None:
    """Connect the processes of a launch, once; without a GPU by gloo.

    Raises:
        ValueError: no GPU, and a launcher other than 'pytorch'.
    """
    options = dict(env_cfg.get('dist_cfg') or {})
    if is_distributed():
        return
    if on_cpu():
        _init_gloo(launcher, options)
    else:
        init_dist(launcher, **options)


def on_cpu() -> bool:
    """Whether this machine trains without a GPU."""
    return get_device() == 'cpu'


def _init_gloo(launcher: str, dist_cfg: dict) -> None:
    """mmengine selects a CUDA device before it connects; on CPUs there is none.

    Raises:
        ValueError: a launcher other than 'pytorch'.
    """
    if launcher != 'pytorch':
        raise ValueError(
            f"launcher={launcher!r} needs GPUs. On CPUs use launcher='pytorch', i.e. torchrun."
        )
    options = {k: v for k, v in dist_cfg.items() if k not in ('backend', 'init_backend')}
    if 'timeout' in options:
        options['timeout'] = datetime.timedelta(seconds=options['timeout'])
    torch_dist.init_process_group(backend='gloo', **options)
    print_log('No GPU here: the processes are connected by gloo.')


def join_groups(given: MutableMapping[str, Any]) -> groups.Groups | None:
    """Join a group if the model has ``mmkd.Neighbours``, and change the run into that of the group.

    Its work dir is below that of the launch, and its seed is another one; the first group has the
    seed of a run without groups.

    Args:
        given (dict): arguments of a Runner.

    Raises:
        ValueError: processes that make no groups; a checkpoint to resume from, which is of one.
    """
    count, launcher = groups_of(given['model']), given.get('launcher', 'none')
    if not count or launcher == 'none':  # which is refused when it trains
        return None
    if given.get('resume') and given.get('load_from'):
        raise ValueError(
            f'Neighbours: {given["load_from"]} is the checkpoint of one group, and each goes on '
            'from its own. Resume without naming a file.'
        )
    found = _connect_group(count, launcher, given.get('env_cfg') or {})
    given['work_dir'] = os.path.join(given['work_dir'], f'group_{found.index}')
    random = dict(given.get('randomness') or {})
    if random.get('seed') is not None:
        random['seed'] += found.index * found.size
    given['randomness'] = random
    return found


def _connect_group(count: int, launcher: str, env_cfg: Any) -> groups.Groups:
    if launcher != 'pytorch':
        raise ValueError(
            f'Neighbours: launcher={launcher!r} connects all processes as one run. Start them with '
            "torchrun, as tools/dist_train.sh does, and launcher='pytorch'."
        )
    options = dict(env_cfg.get('dist_cfg') or {})
    seconds = options.get('timeout')
    timeout = None if seconds is None else datetime.timedelta(seconds=seconds)
    if on_cpu():
        return groups.join(count, 'gloo', timeout)
    torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)))
    return groups.join(count, options.get('backend', 'nccl'), timeout)


def common_checkpoint(found: groups.Groups, work_dir: str, newest: str | None) -> str | None:
    """The newest checkpoint of this group of a step of which all groups have one.

    Args:
        newest (str | None): the newest one of this group.

    Raises:
        ValueError: there is none, though every group has some.
    """
    steps = found.tell('newest checkpoints', iteration_of(newest) if newest else 0)
    step = min(steps)
    mine: list[Any] = [None]
    if step and is_main_process():
        mine = [newest if steps[found.index] == step else checkpoint_of(work_dir, step)]
    broadcast_object_list(mine)
    here = found.tell('common checkpoint', mine[0] is not None)
    if step and not all(here):
        raise ValueError(
            'cannot resume: the newest checkpoints of the groups are of the iterations '
            f'{", ".join(map(str, steps))}, and group {here.index(False)} has none of {step}. '
            'Delete the newer ones that the others lack, or start anew in another work dir.'
        )
    return mine[0]
