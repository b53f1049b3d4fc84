"""Stages of a chain that write files instead of training, one file each."""

from mmkd.makers.guidance_routes import GuidanceRoutes

__all__ = ['GuidanceRoutes']
