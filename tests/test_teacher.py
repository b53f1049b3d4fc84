"""Teachers: loaded strictly, frozen, and with their own normalisation."""

import copy

import pytest
import torch

from mmkd.pixels import Pixels
from mmkd.plan.probe import Request
from mmkd.plan.teacher_options import apply_options
from mmkd.tap import parse_taps
from mmkd.teacher import Teacher, build_model, load_strictly
from mmkd.testing import (
    MEAN,
    STD,
    ToyNet,
    detection_batch,
    tiny_faster_rcnn,
    tiny_pspnet,
    tiny_retinanet,
)

CONFIG = dict(type='mmkd.ToyNet', width=4, norm='BN')


@pytest.fixture
def checkpoint(tmp_path):
    def write(change=lambda state: None, wrap=lambda state: state):
        state = ToyNet(4, norm='BN').state_dict()
        change(state)
        torch.save(wrap(state), tmp_path / 'teacher.pth')
        return str(tmp_path / 'teacher.pth')

    return write


# --------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize(
    'wrap',
    [
        lambda s: s,
        lambda s: dict(state_dict=s, meta={}),
        lambda s: {f'module.{k}': v for k, v in s.items()},
    ],
    ids=['bare', 'mmengine', 'DDP'],
)
def test_every_weight_arrives(checkpoint, wrap):
    path = checkpoint(lambda s: [v.fill_(0.25) for v in s.values() if v.is_floating_point()], wrap)
    teacher = Teacher(CONFIG, checkpoint=path)
    assert teacher.loaded_keys == len(teacher.model.state_dict())
    assert all(bool((p == 0.25).all()) for p in teacher.model.parameters())


def test_what_does_not_fit_is_listed(checkpoint):
    def spoil(state):
        del state['neck.conv.weight']
        state['neck.extra'] = torch.zeros(1)
        state['head.fc.weight'] = torch.zeros(7, 4)

    with pytest.raises(ValueError) as error:
        Teacher(CONFIG, checkpoint=checkpoint(spoil))
    text = str(error.value)
    assert 'does not fit ToyNet' in text
    assert '1 missing in the file: neck.conv.weight' in text
    assert '1 not in the model: neck.extra' in text
    assert '1 of another shape: head.fc.weight (file (7, 4), model (3, 4))' in text
    assert 'number of classes' in text and 'teacher.ignore_keys' in text


def test_named_keys_may_differ(checkpoint):
    path = checkpoint(lambda s: s.update({'head.fc.weight': torch.zeros(7, 4)}))
    teacher = Teacher(CONFIG, checkpoint=path, ignore_keys=[r'^head\.'])
    assert teacher.loaded_keys > 0
    with pytest.raises(ValueError, match='head.fc.weight'):
        Teacher(CONFIG, checkpoint=path, ignore_keys=[r'^neck\.'])


def test_old_files_may_lack_batch_counters_only(checkpoint):
    def old(state):
        del state['backbone.1.num_batches_tracked']

    Teacher(CONFIG, checkpoint=checkpoint(old))


def test_a_foreign_file_a_broken_one_and_none(checkpoint, tmp_path):
    with pytest.raises(ValueError, match='does not fit RetinaNet'):
        Teacher(tiny_retinanet(4), checkpoint=checkpoint())
    path = checkpoint()
    content = open(path, 'rb').read()
    open(path, 'wb').write(content[: len(content) // 2])
    with pytest.raises(Exception, match='teacher.pth'):
        Teacher(CONFIG, checkpoint=path)
    with pytest.raises(FileNotFoundError, match='nowhere.pth'):
        Teacher(CONFIG, checkpoint=str(tmp_path / 'nowhere.pth'))
    with pytest.raises(FileNotFoundError, match='nowhere.py'):
        Teacher('nowhere.py', checkpoint='random')
    with pytest.raises(ValueError, match="must be asked for with checkpoint='random'"):
        Teacher(CONFIG)


def test_bad_options():
    with pytest.raises(ValueError, match="dtype must be one of .*'bf16'.*, found 'int8'"):
        Teacher(CONFIG, 'random', dtype='int8')
    with pytest.raises(ValueError, match='memory_format must be'):
        Teacher(CONFIG, 'random', memory_format='nhwc')


def test_config_options_apply():
    teacher = Teacher(dict(model=CONFIG), 'random', cfg_options={'model.width': 6})
    assert teacher.model.neck.conv.out_channels == 6


def test_a_distilled_checkpoint_makes_a_teacher(tmp_path):
    """The chain: what a Distiller saved holds objectives.*, which a teacher does not need."""
    from mmkd.distiller import Distiller

    config = tiny_retinanet(4)
    distiller = Distiller(
        config, dict(f=dict(type='mmkd.FGFI')), dict(config=config, checkpoint='random')
    )
    torch.save(dict(state_dict=distiller.state_dict(), meta={}), tmp_path / 'epoch_1.pth')
    teacher = Teacher(config, str(tmp_path / 'epoch_1.pth'))
    assert torch.equal(teacher.model.backbone.conv1.weight, distiller.backbone.conv1.weight)
    assert load_strictly(build_model(config), str(tmp_path / 'epoch_1.pth')) == teacher.loaded_keys


# ---------------------------------------------------------------------------------------- frozen


def test_it_is_in_eval_mode_without_gradients_and_copies_share_it():
    teacher = Teacher(ToyNet(norm='BN', dropout=0.5), checkpoint='random')
    assert not any(m.training for m in teacher.model.modules())
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert copy.deepcopy(dict(a=teacher))['a'] is teacher


def test_what_it_shows_carries_no_gradient_and_leaves_its_statistics_alone():
    teacher = Teacher(ToyNet(norm='BN', dropout=0.5), checkpoint='random')
    before = copy.deepcopy(teacher.model.state_dict())
    teacher.set_taps(parse_taps(['neck', 'head.fc']))
    inputs, samples = detection_batch()
    sides = [teacher(inputs.requires_grad_(), samples, teacher.pixels) for _ in range(2)]
    for tap in ('neck', 'head.fc'):
        assert not any(t.requires_grad for t in sides[0][tap])
        assert torch.equal(sides[0][tap][0], sides[1][tap][0])
    for key, value in teacher.model.state_dict().items():
        assert torch.equal(value, before[key])


def test_sync_bn_becomes_plain_bn():
    teacher = Teacher(tiny_retinanet(4, norm='SyncBN'), checkpoint='random')
    assert not any('SyncB' in type(m).__name__ for m in teacher.model.modules())


# ---------------------------------------------------------------------------------------- routes


def test_the_teacher_never_computes_a_loss(monkeypatch):
    teacher = Teacher(tiny_faster_rcnn(4), checkpoint='random')
    teacher.set_taps(parse_taps(['roi_head.bbox_head', 'rpn_head']))
    for owner in (teacher.model, teacher.model.rpn_head, teacher.model.roi_head):
        monkeypatch.setattr(
            owner, 'loss', lambda *a, **k: pytest.fail('label assignment is wasted')
        )
    inputs, samples = detection_batch()
    before = torch.get_rng_state()
    side = teacher(inputs, samples, teacher.pixels)
    assert torch.equal(before, torch.get_rng_state())
    assert side['roi_head.bbox_head'][0].shape[1] == 4


# ------------------------------------------------------------------------------------- precision


def test_low_precision_is_the_teachers_own_and_shown_in_float32():
    """The student's autocast does not reach it, nor its precision the student."""
    teacher = Teacher(tiny_retinanet(4), checkpoint='random', dtype='bf16')
    teacher.set_taps(parse_taps('neck'))
    request = Request('teacher', teacher.model, list(parse_taps('neck')))
    apply_options('teacher', teacher, lambda model: request.run(256))
    assert teacher.model.neck.lateral_convs[0].conv.weight.dtype == torch.bfloat16
    inputs, samples = detection_batch()
    with torch.autocast('cpu', dtype=torch.float16):
        shown = teacher(inputs, samples, teacher.pixels)['neck']
    assert all(t.dtype == torch.float32 for t in shown)


# ---------------------------------------------------------------------------------------- pixels

STYLES = {
    'pytorch': dict(mean=MEAN, std=STD, bgr_to_rgb=True),
    'caffe': dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    'raw': dict(),
    'odd': dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], rgb_to_bgr=True, pad_value=0.5),
}


def detector(style, divisor=32):
    return build_model(
        dict(
            tiny_retinanet(4),
            data_preprocessor=dict(
                type='DetDataPreprocessor', pad_size_divisor=divisor, **STYLES[style]
            ),
        )
    )


@pytest.mark.parametrize('student', STYLES)
@pytest.mark.parametrize('teacher', STYLES)
@pytest.mark.parametrize('divisors', [(32, 32), (1, 32), (16, 64)])
def test_the_teacher_sees_what_its_own_preprocessor_would_give(student, teacher, divisors):
    """Two images of unequal size, as the data loader hands them over: values, padding, size."""
    student, teacher = (detector(s, d) for s, d in zip((student, teacher), divisors, strict=True))
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, h, w), generator=generator, dtype=torch.uint8)
        for h, w in ((50, 70), (64, 40))
    ]

    def through(model):
        _, samples = detection_batch(2)
        for sample, image in zip(samples, images, strict=True):
            sample.set_metainfo(dict(img_shape=tuple(image.shape[1:])))
        data = dict(inputs=[i.clone() for i in images], data_samples=samples)
        result = model.data_preprocessor(data, True)
        return result['inputs'], result['data_samples']

    inputs, samples = through(student)
    original = inputs.clone()
    wanted, _ = through(teacher)
    found = Pixels.of(teacher).translate(inputs, samples, Pixels.of(student))
    assert torch.equal(inputs, original), "the student's own pixels were changed"
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-4)


def test_equal_preprocessors_hand_over_the_very_tensor():
    a, b = (Pixels.of(detector('pytorch')) for _ in range(2))
    inputs, samples = detection_batch()
    assert a.translate(inputs, samples, b) is inputs


def test_segmentors_translate_too():
    student = build_model(tiny_pspnet(4))
    other = dict(mean=[0.0] * 3, std=[1.0] * 3, bgr_to_rgb=False, pad_val=7)
    teacher = build_model(tiny_pspnet(4, data_preprocessor=other))
    assert Pixels.of(teacher).pad == 7 and not Pixels.of(teacher).swapped
    inputs, samples = detection_batch()
    found = Pixels.of(teacher).translate(inputs, samples, Pixels.of(student))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    torch.testing.assert_close(found, (inputs * std + mean)[:, [2, 1, 0]])


def test_maps_of_the_teachers_padding_are_cut_off():
    """A student padded to 1 and a teacher padded to 32 are compared where both see the image."""
    from mmkd.distiller import Distiller

    config = tiny_retinanet(4, data_preprocessor=dict(pad_size_divisor=1))
    distiller = Distiller(
        config,
        dict(cwd=dict(type='mmkd.CWD')),
        dict(config=tiny_retinanet(8), checkpoint='random'),
        preflight=False,
    )
    inputs, samples = detection_batch(2, (70, 100))
    losses = distiller.loss(inputs, samples)
    assert losses['kd.cwd.loss'].isfinite()


def test_text_for_the_plan():
    text = str(Pixels.of(detector('caffe')))
    assert text.startswith('BGR mean [103.53') and text.endswith('padding 0 to multiples of 32')
