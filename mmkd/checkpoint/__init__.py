"""Checkpoints as data: found, checked and read without running code, and written atomically."""

from mmkd.checkpoint.annotations import check_plain, guard_file_handlers
from mmkd.checkpoint.checkpoint_error import CheckpointError
from mmkd.checkpoint.choosing import newest_in, weights_of
from mmkd.checkpoint.finding import local_file
from mmkd.checkpoint.finite_weights import not_finite, refuse_not_finite
from mmkd.checkpoint.inspecting import check_file, find_damage
from mmkd.checkpoint.reading import read_checkpoint, read_file
from mmkd.checkpoint.starts import check_start, check_starts
from mmkd.checkpoint.stock import guard_stock_loaders
from mmkd.checkpoint.trust import trust_checkpoints, trusted
from mmkd.checkpoint.weights import dataset_meta_of, weights_of_one
from mmkd.checkpoint.writing import atomic_file

__all__ = [
    'CheckpointError',
    'atomic_file',
    'check_file',
    'check_plain',
    'check_start',
    'check_starts',
    'dataset_meta_of',
    'find_damage',
    'guard_file_handlers',
    'guard_stock_loaders',
    'local_file',
    'newest_in',
    'not_finite',
    'read_checkpoint',
    'read_file',
    'refuse_not_finite',
    'trust_checkpoints',
    'weights_of',
    'weights_of_one',
    'trusted',
]
