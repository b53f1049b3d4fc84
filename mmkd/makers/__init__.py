"""Stages of a chain that write files instead of training, one file each."""

from mmkd.makers.active_labels import ActiveLabels
from mmkd.makers.active_mixup import ActiveMixup
from mmkd.makers.bake import Bake
from mmkd.makers.domain_weights import DomainWeights
from mmkd.makers.fskd import FSKD
from mmkd.makers.guidance_routes import GuidanceRoutes
from mmkd.makers.inversion import Inversion
from mmkd.makers.layer_pairs import LayerPairs
from mmkd.makers.loss_scale import LossScale
from mmkd.makers.low_rank import LowRank
from mmkd.makers.merge_detections import MergeDetections
from mmkd.makers.net2net import Net2Net
from mmkd.makers.neurons import Neurons
from mmkd.makers.prune import Prune
from mmkd.makers.pseudo_labels import PseudoLabels
from mmkd.makers.quantised_map import QuantisedMap
from mmkd.makers.recalibrate import Recalibrate
from mmkd.makers.specialists import Specialists
from mmkd.makers.standardiser import Standardiser
from mmkd.makers.transfer_set import TransferSet
from mmkd.makers.trusted_images import TrustedImages

__all__ = [
    'FSKD',
    'ActiveLabels',
    'ActiveMixup',
    'Bake',
    'DomainWeights',
    'GuidanceRoutes',
    'Inversion',
    'LayerPairs',
    'LossScale',
    'LowRank',
    'MergeDetections',
    'Net2Net',
    'Neurons',
    'Prune',
    'PseudoLabels',
    'QuantisedMap',
    'Recalibrate',
    'Specialists',
    'Standardiser',
    'TransferSet',
    'TrustedImages',
]
