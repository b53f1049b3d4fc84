"""The losses on relations between images, by name, of one tap each."""

from cases import method

from mmkd.objective import Objective

NAMES = (
    'RKD',
    'IRG',
    'GKD',
    'SP',
    'PKT',
    'CCKD',
    'DarkRank',
    'InformationFlow',
    'TripletDistillation',
)


def relation(name: str, *taps: object, **options: object) -> Objective:
    """The objective; IRG without the terms that need logits and a second layer."""
    alone = dict(factors=dict(vertex=0, transform=0)) if name == 'IRG' else {}
    return method(name)(*taps, **alone, **options)
