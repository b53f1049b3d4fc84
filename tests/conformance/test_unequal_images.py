"""Images of unequal size in one batch: padding is nobody's, and the order of images is no matter."""

import pytest
import torch
from detection_toys import _teacher, detector, padded_apart

from mmkd.distiller import Distiller
from mmkd.registry import MODELS

#: methods without random draws, by a detector that does not sample either
CASES = [
    ('Chen2017', 'retinanet'),
    ('CrossKD', 'fcos'),
    ('CrossKD', 'gfl'),
    ('CrossKD', 'yolox'),
    ('DenseKD', 'atss'),
    ('DenseKD', 'yolox'),
    ('FGD', 'atss'),
    ('FGFI', 'retinanet'),
    ('GID', 'atss'),
    ('GID', 'fcos'),
    ('LD', 'gfl'),
    ('Mimic', 'gfl'),
    ('QuantMimic', 'retinanet'),
]


def losses_of(name, toy, order, **options):
    distiller = Distiller(
        detector(toy),
        dict(o=MODELS.get(f'mmkd.{name}')(**options)),
        _teacher(detector(toy, 1)),
        preflight=False,
    ).eval()
    return distiller(*padded_apart(order), mode='loss')


@pytest.mark.parametrize(('name', 'toy'), CASES)
def test_images_in_another_order(name, toy):  # GEN-5
    options = {} if name in ('CrossKD', 'DenseKD', 'LD') else dict(adapt=None)
    options |= dict(min_side=1.0) if name == 'GID' else {}
    both = [losses_of(name, toy, order, **options) for order in ((0, 1), (1, 0))]
    terms = [{k: v for k, v in losses.items() if k.startswith('kd.o.loss')} for losses in both]
    assert sum(terms[0].values()) > 0
    for key in terms[0]:
        torch.testing.assert_close(terms[0][key], terms[1][key], msg=key, rtol=1e-4, atol=1e-6)
