"""What a run is going to do, found before it starts: probe, taps, pairs, adapters, refusals."""

from mmkd.plan.plan import Plan

__all__ = ['Plan']
