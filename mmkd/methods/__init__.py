"""One file per paper. Importing this package registers every method."""

from mmkd.methods.cwd import CWD
from mmkd.methods.fgfi import FGFI
from mmkd.methods.kd import KD

__all__ = ['CWD', 'FGFI', 'KD']


def names() -> list[str]:
    """Names under which methods are registered in scope ``mmkd``."""
    return list(__all__)
