"""One file per paper. Importing this package registers every method."""

from mmkd.methods.at import AT
from mmkd.methods.chen2017 import Chen2017
from mmkd.methods.cirkd import CIRKD
from mmkd.methods.cwd import CWD
from mmkd.methods.dist import DIST
from mmkd.methods.dkd import DKD
from mmkd.methods.fbkd import FBKD
from mmkd.methods.fgd import FGD
from mmkd.methods.fgfi import FGFI
from mmkd.methods.gid import GID
from mmkd.methods.ifvd import IFVD
from mmkd.methods.kd import KD
from mmkd.methods.ld import LD
from mmkd.methods.mgd import MGD
from mmkd.methods.mimic import Mimic
from mmkd.methods.mimic_head import MimicHead
from mmkd.methods.pkd import PKD
from mmkd.methods.skd import SKDPair, SKDPixel
from mmkd.methods.tsl import TSL

__all__ = [
    'AT',
    'CIRKD',
    'CWD',
    'Chen2017',
    'DIST',
    'DKD',
    'FBKD',
    'FGD',
    'FGFI',
    'GID',
    'IFVD',
    'KD',
    'LD',
    'MGD',
    'Mimic',
    'MimicHead',
    'PKD',
    'SKDPair',
    'SKDPixel',
    'TSL',
]


def names() -> list[str]:
    """Names under which methods are registered in scope ``mmkd``."""
    return list(__all__)
