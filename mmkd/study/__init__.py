"""Studies: teacher, plain and distilled students over seeds, compared in a table and a picture."""

from mmkd.study.entries import Study
from mmkd.study.study import Project

__all__ = ['Project', 'Study']
