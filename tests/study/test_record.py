"""Versions that a record names; the whole record is tested with a study."""

from importlib.metadata import version

from mmkd.study.record import versions
from mmkd.version import __version__


def test_versions_of_what_is_installed():
    found = versions()
    assert (found['mmkd'], found['torch']) == (__version__, version('torch'))
