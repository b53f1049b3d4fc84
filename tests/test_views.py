"""What a teacher looks at instead of the student's image."""

import pytest
import torch
from mmengine.structures import BaseDataElement

from mmkd.distiller import Distiller
from mmkd.pixels import Pixels
from mmkd.scales import HalfScale
from mmkd.teacher import Teacher, build_model
from mmkd.teachers import VisionModel
from mmkd.testing import classification_batch, detection_batch, tiny_classifier, tiny_retinanet
from mmkd.views import check_batches, looked_at


def with_views(samples, name='rgb', size=None, channels=3):
    for number, sample in enumerate(samples):
        size = size or sample.metainfo.get('img_shape', (32, 32))[:2]
        draw = torch.Generator().manual_seed(number)
        shape = (channels, *size)
        picture = torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8)
        views = BaseDataElement()
        views.set_field(picture, name)
        sample.set_field(views, 'views', dtype=BaseDataElement)
    return samples


def distiller_of(make=tiny_classifier, tap='backbone.layer3', **teacher):
    torch.manual_seed(0)
    options = dict(config=make(8), checkpoint='random', view='rgb') | teacher
    objective = dict(type='mmkd.FitNet', student=tap)
    return Distiller(make(4), dict(it=objective), options, preflight=False).train()


def test_the_teacher_sees_the_view_in_its_own_pixels():
    distiller = distiller_of()
    inputs, samples = classification_batch(2, (32, 32))
    with_views(samples)
    teacher = distiller.teachers['teacher']
    found = teacher(inputs, samples, distiller.pixels)['backbone.layer3'][0]
    raw = torch.stack([sample.views.rgb for sample in samples]).float()
    own = teacher.pixels
    order = [2, 1, 0] if own.swapped else [0, 1, 2]
    seen = (raw[:, order] - own.mean.view(1, -1, 1, 1)) / own.std.view(1, -1, 1, 1)
    with torch.no_grad():
        wanted = teacher.model.backbone(seen)[-1]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert 'input view rgb, ' in str(distiller.plan)
    loss = distiller.loss(inputs, samples)['kd.it.loss']
    loss.backward()
    assert distiller.student.backbone.conv1.weight.grad.any()


def test_the_own_image_as_view_is_no_view():
    """Degenerate equality: the raw pixels of the student's image."""
    one, other = distiller_of(), distiller_of(view='')
    raw = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()
    _, samples = classification_batch(2, (32, 32))
    inputs = one.pixels.translate(raw, samples, Pixels(None))
    for sample, picture in zip(samples, raw, strict=True):
        views = BaseDataElement()
        views.set_field(picture, 'rgb')
        sample.set_field(views, 'views', dtype=BaseDataElement)
    found = [
        d.teachers['teacher'](inputs, samples, d.pixels)['backbone.layer3'][0] for d in (one, other)
    ]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_padding_of_a_view_is_the_teachers_own():
    _, samples = detection_batch(2, (64, 96))
    for sample in samples:
        sample.set_metainfo(dict(img_shape=(60, 90)))
    with_views(samples)
    batch, pixels = looked_at('rgb', torch.zeros(2, 3, 64, 96), samples, None)
    assert batch.shape == (2, 3, 64, 96) and not batch[:, :, 60:].any() and pixels.channels == 3
    assert torch.equal(batch[0, :, :60, :90], samples[0].views.rgb.float())


def test_modalities_of_other_channels():
    """A student for depth and infrared, whose teacher knows colours."""
    raw = dict(mean=None, std=None, bgr_to_rgb=False)
    student = tiny_retinanet(4, backbone=dict(in_channels=2), data_preprocessor=raw)
    objective = dict(type='mmkd.FitNet', student='neck')
    plain = dict(config=tiny_retinanet(8), checkpoint='random')
    with pytest.raises(ValueError, match='takes images of 3 channels and the student of 2'):
        Distiller(student, dict(it=objective), plain)
    distiller = Distiller(student, dict(it=objective), plain | dict(view='rgb'), preflight=False)
    _, samples = detection_batch(2, (64, 96))
    losses = distiller.train().loss(torch.randn(2, 2, 64, 96), with_views(samples))
    assert float(losses['kd.it.loss'].detach()) > 0


def test_a_student_on_fewer_pixels_with_a_view():
    halves = dict(data_preprocessor=dict(batch_augments=[dict(type='mmkd.HalfScale')]))
    objective = dict(it=dict(type='mmkd.FitNet', student='neck', resize=None, level_map='common'))
    teacher = dict(config=tiny_retinanet(8), checkpoint='random', view='rgb')
    distiller = Distiller(tiny_retinanet(4, **halves), objective, teacher, preflight=False).train()
    inputs, samples = detection_batch(2, (128, 192))
    small = HalfScale()(inputs, with_views(samples))
    side = distiller.teachers['teacher'](*small, distiller.pixels)
    assert side.inputs.shape == (2, 3, 128, 192)
    assert float(distiller.loss(*small)['kd.it.loss'].detach()) > 0


def test_encoders_from_outside_have_views():
    network = torch.nn.Conv2d(3, 4, 4, 4)
    assert VisionModel(network, 'own', patch=4, view='rgb').view == 'rgb'


def test_weight_zero_reads_no_view():
    distiller = distiller_of()
    distiller.objectives['it'].weight = type(distiller.objectives['it'].weight).of(0)
    inputs, samples = classification_batch(2, (32, 32))
    distiller.loss(inputs, samples)


def test_bad_input():
    inputs, samples = classification_batch(2, (32, 32))
    distiller = distiller_of()
    with pytest.raises(ValueError, match="looks at view='rgb', but the samples carry no views"):
        distiller.loss(inputs, samples)
    with pytest.raises(ValueError, match='but the samples carry ir'):
        distiller.loss(inputs, with_views(samples, 'ir'))
    for sample in samples:
        sample.set_metainfo(dict(img_shape=(32, 32)))
    with pytest.raises(ValueError, match=r'has \(30, 32\) pixels and its image \(32, 32\)'):
        distiller.loss(inputs, with_views(samples, size=(30, 32)))


def test_batches_that_views_do_not_follow():
    mixing = tiny_classifier(4)
    mixing['data_preprocessor'] = dict(mixup=1.0)
    student = build_model(mixing)
    check_batches('', student)
    with pytest.raises(ValueError, match='has mixup or cutmix, which would change the image'):
        check_batches('rgb', student)
    with pytest.raises(ValueError, match='mixup or cutmix'):
        Teacher(tiny_classifier(8), 'random', view='rgb').meet(student)
    augmented = torch.nn.Module()
    augmented.data_preprocessor = torch.nn.Module()
    augmented.data_preprocessor.batch_augments = [HalfScale(), torch.nn.Dropout()]
    with pytest.raises(ValueError, match='has Dropout, which'):
        check_batches('rgb', augmented)
