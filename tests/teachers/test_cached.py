"""Scores from a file: found by image, right only without random geometry."""

import numpy as np
import pytest
import torch
from teacher_toys import SIZE, Images, assert_same, make, train

from mmkd.distiller import Distiller
from mmkd.structures import ClassSample
from mmkd.teacher import build_model
from mmkd.teachers import build_teacher
from mmkd.teachers.cached import read_scores
from mmkd.testing import segmentation_batch, tiny_classifier, tiny_pspnet


@pytest.fixture
def scores():
    torch.manual_seed(0)
    return torch.randn(SIZE, 3).softmax(1)


@pytest.fixture
def file(tmp_path, scores):
    path = tmp_path / 'scores.npz'
    np.savez(path, keys=np.array([f'{i}.png' for i in range(SIZE)]), scores=scores.numpy())
    return str(path)


def entry(file, **options):
    return dict(type='mmkd.Cached', file=file, **options)


def distil(file, **options):
    student = build_model(tiny_classifier(width=4))
    return Distiller(
        student, dict(it=dict(type='mmkd.KD')), entry(file, **options), preflight=False
    )


def sample(name):
    return ClassSample(metainfo=dict(img_path=name))


def test_scores_are_found_by_the_end_of_the_path(file, scores):
    model = distil(file)
    samples = [sample(f'/a/b/{i}.png') for i in (3, 11)]
    side = model.teachers['teacher'](torch.zeros(2, 3, 16, 16), samples, model.pixels)
    torch.testing.assert_close(side['head.fc'][0].softmax(1), scores[[3, 11]], rtol=0, atol=1e-6)


def test_the_longest_end_counts(tmp_path):
    keys, p = ['1.png', 'cat/1.png'], torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    torch.save(dict(keys=keys, scores=p), tmp_path / 's.pt')
    model = distil(str(tmp_path / 's.pt'))
    samples = [sample('x/cat/1.png'), sample('x/dog/1.png')]
    side = model.teachers['teacher'](torch.zeros(2, 3, 16, 16), samples, model.pixels)
    assert side['head.fc'][0].argmax(1).tolist() == [1, 0]


def test_another_key(file):
    model = distil(file, key='name')
    one = ClassSample(metainfo=dict(name='5.png'))
    model.teachers['teacher'](torch.zeros(1, 3, 16, 16), [one], model.pixels)


def test_training_equals_that_with_the_network_that_wrote_them(tmp_path):
    """Without random transforms a cache shows what the teacher would, but for the floor of 1e-8."""
    torch.manual_seed(1)
    network = build_model(tiny_classifier(width=4)).eval()
    images = [Images()[i] for i in range(SIZE)]
    data = network.data_preprocessor(
        dict(inputs=[i['inputs'] for i in images], data_samples=[i['data_samples'] for i in images])
    )
    with torch.no_grad():
        p = network(data['inputs']).softmax(1)
    torch.save(dict(keys=[f'data/{i}.png' for i in range(SIZE)], scores=p), tmp_path / 's.pt')
    torch.save(network.state_dict(), tmp_path / 'w.pth')
    objectives = dict(kd=dict(type='mmkd.KD', tau=1))
    cached = train(tmp_path / 'a', teacher=entry(str(tmp_path / 's.pt')), objectives=objectives)
    teacher = dict(config=tiny_classifier(width=4), checkpoint=str(tmp_path / 'w.pth'))
    asked = train(tmp_path / 'b', teacher=teacher, objectives=objectives)
    for i, losses in asked.watch.losses.items():
        assert cached.watch.losses[i]['kd.kd.loss'] == pytest.approx(losses['kd.kd.loss'], rel=1e-3)


def test_weight_zero_is_plain_training(tmp_path, file):
    objectives = dict(kd=dict(type='mmkd.KD', weight=0))
    one = train(tmp_path / 'a', teacher=entry(file), objectives=objectives, steps=2)
    assert_same(one, train(tmp_path / 'b', distils=False, steps=2))


def test_scores_of_pixels(tmp_path):
    p = torch.rand(2, 3, 8, 12).softmax(1)
    torch.save(dict(keys=['0.png', '1.png'], scores=p), tmp_path / 's.pt')
    student, objectives = (
        build_model(tiny_pspnet()),
        dict(it=dict(type='mmkd.KD', resize='student')),
    )
    model = Distiller(student, objectives, entry(str(tmp_path / 's.pt')), preflight=False)
    inputs, samples = segmentation_batch()
    for i, one in enumerate(samples):
        one.set_metainfo(dict(img_path=f'{i}.png'))
    side = model.teachers['teacher'](inputs, samples, model.pixels)
    assert side['decode_head.conv_seg'][0].shape == (2, 3, 64, 96)
    assert float(model.loss(inputs, samples)['kd.it.loss']) >= 0


def test_scores_of_pixels_lie_over_the_image_and_not_over_its_padding(tmp_path):
    p = torch.rand(2, 3, 32, 48).softmax(1)
    torch.save(dict(keys=['0.png', '1.png'], scores=p), tmp_path / 's.pt')
    student = build_model(tiny_pspnet())
    objectives = dict(it=dict(type='mmkd.KD', resize='student'))
    model = Distiller(student, objectives, entry(str(tmp_path / 's.pt')), preflight=False)
    inputs, samples = segmentation_batch()
    for i, (one, size) in enumerate(zip(samples, ((32, 48), (64, 96)), strict=True)):
        one.set_metainfo(dict(img_path=f'{i}.png', img_shape=size))
    small, whole = model.teachers['teacher'](inputs, samples, model.pixels)['decode_head.conv_seg'][
        0
    ]
    torch.testing.assert_close(small[:, :32, :48].softmax(0), p[0], rtol=0, atol=1e-6)
    assert not small[:, 32:].any() and not small[:, :, 48:].any()
    assert whole.shape == (3, 64, 96) and whole.all()


class RandomAffine:
    pass


class RandomFlip:
    prob = 0.5


def with_pipeline(*transforms):
    data = Images()
    data.pipeline = type('Compose', (), {})()
    data.pipeline.transforms = list(transforms)
    return dict(dataset=data, batch_size=4, sampler=dict(type='InfiniteSampler', shuffle=True))


def test_random_geometry_is_refused_by_name(tmp_path, file):
    loader = with_pipeline(RandomFlip(), RandomAffine())
    runner = make(tmp_path, teacher=entry(file), train_dataloader=loader)
    with pytest.raises(ValueError, match="teacher 'teacher': Cached: .* has RandomAffine, which"):
        runner.train()
    assert not runner.watch.losses


def test_an_image_that_is_not_in_the_file(file):
    model = distil(file)
    with pytest.raises(ValueError, match=r"image 'x/99.png' \(img_path\) is not in"):
        model.teachers['teacher'](torch.zeros(1, 3, 16, 16), [sample('x/99.png')], model.pixels)


def test_images_that_are_missing_are_found_before_training(tmp_path, scores):
    class Listed(Images):
        def get_data_info(self, index):
            return dict(img_path=f'data/{index}.png')

    held = dict(keys=[f'{i}.png' for i in range(SIZE - 2)], scores=scores[:-2])
    loader = dict(
        dataset=Listed(), batch_size=4, sampler=dict(type='InfiniteSampler', shuffle=True)
    )
    runner = make(tmp_path, teacher=entry(write(tmp_path, **held)), train_dataloader=loader)
    with pytest.raises(ValueError, match=rf"data/{SIZE - 2}.png' .* 2 of {SIZE} training images"):
        runner.train()
    assert not runner.watch.losses


def write(tmp_path, **held):
    torch.save(held, tmp_path / 's.pt')
    return str(tmp_path / 's.pt')


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 cut', b'text', 'objects'])
def test_arrays_that_cannot_be_read(tmp_path, content):
    path = tmp_path / 's.npz'
    if content == 'objects':
        np.savez(path, keys=np.array(['a'], dtype=object), scores=np.ones((1, 3)) / 3)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match='cannot be read .*keys as text'):
        build_teacher(entry(str(path)))


@pytest.mark.parametrize('name', ['{}', './train/{}', 'train\\{}'])
def test_names_are_written_in_many_ways(tmp_path, scores, name):
    keys = [name.format(f'{i}.png') for i in range(SIZE)]
    model = distil(write(tmp_path, keys=keys, scores=scores))
    where = [sample('/data/train/7.png')]
    side = model.teachers['teacher'](torch.zeros(1, 3, 16, 16), where, model.pixels)
    torch.testing.assert_close(side['head.fc'][0].softmax(1), scores[[7]], rtol=0, atol=1e-6)


def test_a_key_that_samples_do_not_have(file):
    model = distil(file, key='img_pth')
    with pytest.raises(ValueError, match="key='img_pth' is not in the meta .* has img_path"):
        model.teachers['teacher'](torch.zeros(1, 3, 16, 16), [sample('0.png')], model.pixels)


@pytest.mark.parametrize(
    ('held', 'words'),
    [
        (dict(keys=torch.tensor(1), scores=torch.ones(1, 3)), 'must hold keys and scores'),
        (dict(keys=['a'], values=torch.ones(1, 3)), 'must hold keys and scores'),
        (dict(keys=['a', 'b'], scores=torch.ones(1, 3)), '2 keys and 1 rows'),
        (dict(keys=[], scores=torch.ones(0, 3)), '0 keys'),
        (dict(keys=['a', 'a'], scores=torch.ones(2, 3) / 3), 'names an image twice'),
    ],
)
def test_files_that_are_none(tmp_path, held, words):
    with pytest.raises(ValueError, match=words):
        build_teacher(entry(write(tmp_path, **held)))


def test_scores_of_other_classes(tmp_path):
    with pytest.raises(ValueError, match=r'probabilities \(1, 3\), found the shape \(1, 4\)'):
        distil(write(tmp_path, keys=['a'], scores=torch.ones(1, 4) / 4))


def test_no_file():
    with pytest.raises(FileNotFoundError, match='there is no file nowhere.npz'):
        build_teacher(entry('nowhere.npz'))


def test_scores_that_a_gpu_wrote_which_is_not_here(tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.serialization, 'location_tag', lambda storage: 'cuda:5')
        torch.save(dict(keys=['0.png'], scores=torch.ones(1, 2)), tmp_path / 's.pt')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert read_scores('Cached', str(tmp_path / 's.pt'))['scores'].device.type == 'cpu'
