"""Images of unequal size in one batch: padding is nobody's, and the order of images is no matter."""

import pytest
import torch
from detection_toys import _teacher, detector, samples

from mmkd.distiller import Distiller
from mmkd.methods.ld import LD
from mmkd.registry import MODELS

#: methods without random draws, by a detector that does not sample either
CASES = [
    ('Chen2017', 'retinanet'),
    ('CrossKD', 'fcos'),
    ('CrossKD', 'gfl'),
    ('FGD', 'atss'),
    ('FGFI', 'retinanet'),
    ('GID', 'atss'),
    ('GID', 'fcos'),
    ('LD', 'gfl'),
    ('Mimic', 'gfl'),
    ('QuantMimic', 'retinanet'),
]


def padded_apart(order=(0, 1)):
    """Pixels and samples as mmdet's preprocessor makes them: each image knows its own padding."""
    inputs, batch = (
        torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)),
        samples(),
    )
    for image, sample in zip(inputs, batch, strict=True):
        h, w = sample.img_shape
        image[:, h:], image[:, :, w:] = 0, 0
        sample.set_metainfo(dict(pad_shape=(-(-h // 32) * 32, -(-w // 32) * 32)))
    assert {s.pad_shape for s in batch} == {(96, 128), (96, 96)}
    return inputs[list(order)], [batch[i] for i in order]


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
    options = {} if name in ('CrossKD', 'LD') else dict(adapt=None)
    options |= dict(min_side=1.0) if name == 'GID' else {}
    both = [losses_of(name, toy, order, **options) for order in ((0, 1), (1, 0))]
    terms = [{k: v for k, v in losses.items() if k.startswith('kd.o.loss')} for losses in both]
    assert sum(terms[0].values()) > 0
    for key in terms[0]:
        torch.testing.assert_close(terms[0][key], terms[1][key], msg=key, rtol=1e-4, atol=1e-6)


def test_regions_of_ld_are_those_of_each_image():
    """A batch that begins with the smaller image has the regions of both images alone."""
    student = detector('gfl').eval()
    objective = LD()
    distiller = Distiller(student, dict(o=objective), _teacher(detector('gfl', 1)), preflight=False)
    seen = []
    objective.register_forward_pre_hook(lambda _, args: seen.append(objective.regions(args[0])[1]))
    inputs, batch = padded_apart((1, 0))
    for chosen in ([0, 1], [0], [1]):
        distiller.eval()(inputs[chosen], [batch[i] for i in chosen], mode='loss')
    both, *single = seen
    assert (both > 0).sum(1).min() > 0
    torch.testing.assert_close(both, torch.cat(single))
