"""The classifier: what it returns, what it refuses, and whose checkpoints it takes."""

import pytest
import torch
from torch import nn

from mmkd import MODELS
from mmkd.families import classifier, family_of
from mmkd.structures import ClassSample
from mmkd.teacher import Teacher, build_model
from mmkd.testing import classification_batch, tiny_classifier


@MODELS.register_module()
class Tokens(nn.Module):
    """A backbone whose output is no map."""

    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


@MODELS.register_module()
class OneMap(nn.Module):
    """A backbone that returns a map and no tuple, and draws a random number."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 7, 3, 2)

    def forward(self, x):
        torch.rand(1)
        return self.conv(x)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_the_loss_is_cross_entropy_with_smoothed_targets(smoothing):
    model = build_model(tiny_classifier(label_smoothing=smoothing)).eval()
    inputs, samples = classification_batch()
    log_p = model(inputs).log_softmax(1)
    hard = -log_p[range(8), classifier.labels(samples)].mean()
    wanted = (1 - smoothing) * hard - smoothing * log_p.mean()
    losses = model(inputs, samples, mode='loss')
    assert list(losses) == ['loss_cls']
    torch.testing.assert_close(losses['loss_cls'], wanted)


def test_shares_of_a_mixture_are_the_target():
    model = build_model(tiny_classifier()).eval()
    inputs, samples = classification_batch(2)
    samples[0].set_gt_score(torch.tensor([0.7, 0.0, 0.3]))
    log_p = model(inputs).log_softmax(1)
    wanted = -(0.7 * log_p[0, 0] + 0.3 * log_p[0, 2] + log_p[1, samples[1].gt_label[0]]) / 2
    torch.testing.assert_close(model(inputs, samples, mode='loss')['loss_cls'], wanted)


def test_predictions_go_to_the_samples():
    model = build_model(tiny_classifier()).eval()
    inputs, samples = classification_batch()
    logits = model(inputs)
    found = model(inputs, samples, mode='predict')
    assert found[0] is samples[0] and 'gt_label' in found[0]
    torch.testing.assert_close(torch.stack([x.pred_score for x in found]), logits.softmax(1))
    assert torch.cat([x.pred_label for x in found]).tolist() == logits.argmax(1).tolist()
    assert isinstance(model(inputs, mode='predict')[0], ClassSample)
    with pytest.raises(ValueError, match="'tensor', 'predict' or 'loss', found 'train'"):
        model(inputs, mode='train')


def test_pool_and_fc_are_calls_of_modules():
    model = build_model(tiny_classifier(kind='mmdet')).eval()
    seen = {}
    for name in ('pool', 'head.fc'):
        hook = lambda _m, _i, out, name=name: seen.update({name: out})  # noqa: E731
        model.get_submodule(name).register_forward_hook(hook)
    inputs, _ = classification_batch()
    torch.testing.assert_close(model(inputs), seen['head.fc'])
    torch.testing.assert_close(model.extract_feat(inputs)[-1].mean((2, 3)), seen['pool'])


def test_the_width_is_probed_without_a_trace():
    torch.manual_seed(0)
    model = build_model(
        dict(type='mmkd.Classifier', backbone=dict(type='mmkd.OneMap'), num_classes=2)
    )
    drawn = torch.rand(1)
    torch.manual_seed(0)
    nn.Conv2d(3, 7, 3, 2), nn.Linear(7, 2)
    assert torch.equal(drawn, torch.rand(1))
    assert model.head.fc.in_features == 7 and model.backbone.training
    assert len(model.extract_feat(torch.zeros(1, 3, 9, 9))) == 1


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(num_classes=0), 'num_classes must be a whole number of at least 1, found 0'),
        (
            dict(label_smoothing=1.0),
            'label_smoothing must be a finite number of at least 0 and below 1, found 1.0',
        ),
        (
            dict(backbone=dict(type='mmkd.Tokens')),
            r'pools a map .* output of Tokens is \(1, 4096, 3\)',
        ),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    options = dict(backbone=dict(type='mmkd.OneMap'), num_classes=2) | changes
    with pytest.raises(ValueError, match=message):
        build_model(dict(type='mmkd.Classifier', **options))


def test_images_of_one_channel():
    grey = tiny_classifier(kind='mmdet', backbone=dict(in_channels=1))
    grey['data_preprocessor'] = dict(mean=[100.0], std=[50.0])
    assert build_model(grey)(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


def test_frozen_statistics_are_pointed_out(log):
    build_model(tiny_classifier(kind='mmdet'))
    assert 'norm_eval' not in log.text
    build_model(tiny_classifier(kind='mmdet', backbone=dict(norm_eval=True)))
    assert 'the ResNet has norm_eval=True' in log.text


def test_samples_without_labels_are_refused():
    model = build_model(tiny_classifier())
    with pytest.raises(ValueError, match='samples without gt_label'):
        model(torch.zeros(2, 3, 32, 32), [ClassSample(), ClassSample()], mode='loss')


def test_a_checkpoint_of_mmpretrain_loads_strictly(tmp_path):
    """Its keys are those of mmdet's ResNet under 'backbone.' and a linear layer 'head.fc'."""
    from mmdet.models import ResNet

    state = {f'backbone.{k}': v for k, v in ResNet(18, base_channels=4).state_dict().items()}
    state |= {'head.fc.weight': torch.ones(3, 32), 'head.fc.bias': torch.zeros(3)}
    meta = dict(mmcls_version='0.15.0', CLASSES=['cat', 'dog', 'emu'])
    torch.save(dict(meta=meta, state_dict=state), tmp_path / 'r18.pth')
    teacher = Teacher(tiny_classifier(kind='mmdet'), checkpoint=str(tmp_path / 'r18.pth'))
    assert teacher.loaded_keys == len(state)
    assert family_of(teacher.model) == 'classifier'
    assert classifier.classes(teacher.model) == ('cat', 'dog', 'emu')
