"""The plan of a run, made before it starts: probe, taps, pairs, adapters, refusals."""

from mmkd.plan.plan import Plan

__all__ = ['Plan']
