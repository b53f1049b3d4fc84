"""Procedures of several runs: a stage may take its teacher or student from an earlier one."""

from mmkd.chain.assistants import nearest_to_mean, paths
from mmkd.chain.chain import Chain
from mmkd.chain.makers import Maker, build_maker, run_maker
from mmkd.chain.product import Product
from mmkd.chain.stage import Reference, Stage, is_chain

__all__ = [
    'Chain',
    'Maker',
    'Product',
    'Reference',
    'Stage',
    'build_maker',
    'is_chain',
    'nearest_to_mean',
    'paths',
    'run_maker',
]
