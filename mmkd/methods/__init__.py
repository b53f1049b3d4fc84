"""One file per paper. Importing this package registers every method."""

from mmkd.methods.ab import AB
from mmkd.methods.at import AT
from mmkd.methods.at_gradient import ATGradient
from mmkd.methods.cckd import CCKD
from mmkd.methods.chen2017 import Chen2017
from mmkd.methods.cirkd import CIRKD
from mmkd.methods.cirkd_memory import CIRKDMemory
from mmkd.methods.confidence_penalty import ConfidencePenalty
from mmkd.methods.crd import CRD
from mmkd.methods.crosskd import CrossKD
from mmkd.methods.cscace import CSCACE
from mmkd.methods.cskd import CSKD
from mmkd.methods.cwd import CWD
from mmkd.methods.darkrank import DarkRank
from mmkd.methods.dist import DIST
from mmkd.methods.dkd import DKD
from mmkd.methods.eskd import ESKD
from mmkd.methods.fbkd import FBKD
from mmkd.methods.fgd import FGD
from mmkd.methods.fgfi import FGFI
from mmkd.methods.fitnet import FitNet
from mmkd.methods.fsp import FSP
from mmkd.methods.ft import FT
from mmkd.methods.gid import GID
from mmkd.methods.gkd import GKD
from mmkd.methods.guidance_route import GuidanceRoute
from mmkd.methods.hdkd import HDKD
from mmkd.methods.ifvd import IFVD
from mmkd.methods.information_flow import InformationFlow
from mmkd.methods.intrakd import IntRAKD
from mmkd.methods.irg import IRG
from mmkd.methods.jacobian import Jacobian
from mmkd.methods.ka import KA
from mmkd.methods.kd import KD
from mmkd.methods.kdsvd import KDSVD
from mmkd.methods.l2_logit import L2Logit
from mmkd.methods.ld import LD
from mmkd.methods.logit_standardization import LogitStandardization
from mmkd.methods.lsr import LSR
from mmkd.methods.mgd import MGD
from mmkd.methods.mhgd import MHGD
from mmkd.methods.mimic import Mimic
from mmkd.methods.mimic_head import MimicHead
from mmkd.methods.noisy_teacher import NoisyTeacher
from mmkd.methods.nst import NST
from mmkd.methods.od200f import OD200F
from mmkd.methods.ofd import OFD
from mmkd.methods.pkd import PKD
from mmkd.methods.pkt import PKT
from mmkd.methods.prdkd import PRDKD
from mmkd.methods.quant_mimic import QuantMimic
from mmkd.methods.reviewkd import ReviewKD
from mmkd.methods.rkd import RKD
from mmkd.methods.simkd import SimKD
from mmkd.methods.skd_holistic import SKDHolistic
from mmkd.methods.skd_pair import SKDPair
from mmkd.methods.skd_pixel import SKDPixel
from mmkd.methods.sp import SP
from mmkd.methods.triplet_distillation import TripletDistillation
from mmkd.methods.tsd import TSD
from mmkd.methods.tsl import TSL
from mmkd.methods.vid import VID
from mmkd.methods.wsld import WSLD

__all__ = [
    'AB',
    'AT',
    'ATGradient',
    'CCKD',
    'Chen2017',
    'CIRKD',
    'CIRKDMemory',
    'ConfidencePenalty',
    'CRD',
    'CrossKD',
    'CSCACE',
    'CSKD',
    'CWD',
    'DarkRank',
    'DIST',
    'DKD',
    'ESKD',
    'FBKD',
    'FGD',
    'FGFI',
    'FitNet',
    'FSP',
    'FT',
    'GID',
    'GKD',
    'GuidanceRoute',
    'HDKD',
    'IFVD',
    'InformationFlow',
    'IntRAKD',
    'IRG',
    'Jacobian',
    'KA',
    'KD',
    'KDSVD',
    'L2Logit',
    'LD',
    'LogitStandardization',
    'LSR',
    'MGD',
    'MHGD',
    'Mimic',
    'MimicHead',
    'NoisyTeacher',
    'NST',
    'OD200F',
    'OFD',
    'PKD',
    'PKT',
    'PRDKD',
    'QuantMimic',
    'ReviewKD',
    'RKD',
    'SimKD',
    'SKDHolistic',
    'SKDPair',
    'SKDPixel',
    'SP',
    'TripletDistillation',
    'TSD',
    'TSL',
    'VID',
    'WSLD',
]


def names() -> list[str]:
    """Names under which methods are registered in scope ``mmkd``."""
    return list(__all__)
