"""Train-time modules that bring a student tensor to the teacher's width."""

from mmkd.adapters.convolution import ADAPTERS, ConvAdapter, build_adapter

__all__ = ['ADAPTERS', 'ConvAdapter', 'build_adapter']
