"""Pages that show what an objective looks at: boxes, masks, attention, classes."""

from mmkd.visualization.view import Boxes, View

__all__ = ['Boxes', 'View']
