"""Image classifiers: taps of logits, embedding and stages; labels and indices of images.

A classifier has a ``backbone`` and a ``head`` with a linear layer ``fc``, as those of mmkd and
mmpretrain do. A backbone says where its parts are by ``stem``, ``stages``, ``preacts`` and
``preact_norms``, addresses relative to itself; ResNets of mmdet, mmseg and mmpretrain are known
without.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.families.comparable import Misfit, named
from mmkd.functional.nested import flatten
from mmkd.pixels import picture
from mmkd.tap import Recorder, Side, Tap, parse_taps
from mmkd.untouched import at_rest

LOGITS = 'head.fc'


def logits_tap(model: nn.Module) -> str:
    """Address of the logits (N, K).

    Raises:
        ValueError: no classifier.
    """
    if not isinstance(getattr(getattr(model, 'head', None), 'fc', None), nn.Module):
        raise ValueError(
            f'{type(model).__name__} has no linear layer head.fc, so it is no image classifier '
            'whose logits could be found; use mmkd.Classifier.'
        )
    return LOGITS


def embedding_tap(model: nn.Module) -> str:
    """Address of the pooled features (N, D), the input of the linear layer.

    Raises:
        ValueError: no classifier.
    """
    logits = logits_tap(model)
    return 'pool' if isinstance(getattr(model, 'pool', None), nn.Module) else f'{logits}@in[0]'


def stem_tap(model: nn.Module) -> str:
    """Address of the map (N, C, H, W) that enters the first stage.

    Raises:
        ValueError: a backbone of an unknown kind.
    """
    own = getattr(model.backbone, 'stem', None)
    if isinstance(own, str):
        return f'backbone.{own}'
    if _is_resnet(model):
        return 'backbone.maxpool'
    raise _unknown(model, 'stem')


def shown(model: nn.Module, taps: Iterable[Tap], image: Tensor | None = None) -> Side:
    """What a network at rest shows at taps.

    Args:
        image (Tensor | None): (N, C, H, W); None: :func:`~mmkd.pixels.picture` of 64 pixels.
    """
    if image is None:
        image = picture(model, 64).to(next(model.parameters()).dtype)
    with at_rest(model), Recorder(model, taps).record(image) as side:
        model(image, mode='tensor')
    return side


def stage_taps(model: nn.Module) -> list[str]:
    """Addresses of the maps (N, C, H, W) of all stages, finest first.

    They are activated (post-ReLU), except of a WideResNet, whose stages end in a bare sum.

    Raises:
        ValueError: a backbone of an unknown kind.
    """
    own = getattr(model.backbone, 'stages', None)
    if isinstance(own, tuple):
        return [f'backbone.{name}' for name in own]
    if _is_resnet(model):
        return [f'backbone.{name}' for name in model.backbone.res_layers]
    outputs = getattr(model.backbone, 'out_indices', None)
    if isinstance(outputs, Sequence):
        return [f'backbone[{i}]' for i in range(len(outputs))]
    raise _unknown(model, 'stages')


def preact_taps(model: nn.Module) -> list[str]:
    """Addresses of the value before the last ReLU of each stage (N, C, H, W), finest first.

    In a ResNet the sum of residual and shortcut, in a WideResNet the first BatchNorm's output of
    the next stage.

    Raises:
        ValueError: a backbone of an unknown kind.
    """
    own = getattr(model.backbone, 'preacts', None)
    if own is not None:
        return [f'backbone.{name}' for name in own]
    if _is_resnet(model):
        # One module is called after each convolution; its last call sees the sum.
        return [f'{block}.relu@in[0][-1]' for block in _last_blocks(model)]
    raise _unknown(model, 'values before the last ReLU')


def middle_stage_tap(model: nn.Module) -> str:
    """Address of the map (N, C, H, W) of the stage in the middle; the later one of two."""
    stages = stage_taps(model)
    return stages[len(stages) // 2]


def choose_taps(
    objective: Any,
    find: Callable[[nn.Module], str | list[str]],
    student: nn.Module | None,
    teacher: nn.Module | None,
) -> None:
    """Give an objective without taps those that ``find`` knows, of the models given.

    Raises:
        ValueError: no taps, and a model that ``find`` does not know.
    """
    for side, model in (('student', student), ('teacher', teacher)):
        if model is None or getattr(objective, f'{side}_taps'):
            continue
        if not hasattr(getattr(model, 'head', None), 'fc'):
            raise Misfit(
                f'{type(objective).__name__} has taps of its own for classifiers only, but the '
                f'{side} is {named(model)}.'
            )
        setattr(objective, f'{side}_taps', parse_taps(find(model)))


def preact_norms(model: nn.Module) -> list[nn.Module]:
    """The BatchNorm (C channels) before the last ReLU of each stage, as :func:`preact_taps`.

    Raises:
        ValueError: a backbone of an unknown kind.
    """
    own = getattr(model.backbone, 'preact_norms', None)
    if own is not None:
        return [model.backbone.get_submodule(name) for name in own]
    if _is_resnet(model):
        blocks = [model.get_submodule(name) for name in _last_blocks(model)]
        return [b.norm3 if hasattr(b, 'norm3') else b.norm2 for b in blocks]
    raise _unknown(model, 'BatchNorms before the last ReLU')


def in_precision(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network itself, or a copy if its weights are of another precision."""
    same = next(model.parameters()).dtype == dtype
    return model if same else copy.deepcopy(model).to(dtype)


def carry_on(model: nn.Module, x: Tensor, stage: int) -> tuple[Tensor, Tensor]:
    """What the rest of a classifier makes of a map, with gradients in the map.

    Args:
        x (Tensor): what a stage gives, (N, C, H, W), in the network's precision.
        stage (int): its place, counted from 0.

    Returns:
        tuple: logits (N, K), and the value before the last ReLU of the last stage (N, D, H, W).
    """
    model_: Any = model
    stages = [model.get_submodule(name) for name in stage_taps(model)]
    tap = Tap.parse(preact_taps(model)[-1])
    with Recorder(model, [tap]).record(x) as side:
        for module in stages[stage + 1 :]:
            x = module(x)
        x = model_.backbone.end(x) if hasattr(model_.backbone, 'end') else x
        x = x if getattr(model_, 'projector', None) is None else model_.projector(x)
        scores = model_.head(model_.pool(x))
    return scores, flatten(side.raw(tap))[-1]


def check_tail(model: nn.Module) -> None:
    """Refuse a classifier that :func:`carry_on` does not run as it runs itself.

    Raises:
        ValueError: it gives other logits, or none.
    """
    stages = parse_taps(stage_taps(model))
    side = shown(model, [*stages, *parse_taps(LOGITS)])
    wanted = side[parse_taps(LOGITS)[0]][0]
    for place, stage in enumerate(stages[:-1]):
        try:
            with at_rest(model):
                found = carry_on(model, flatten(side.raw(stage))[-1], place)[0].float()
            same = torch.allclose(found, wanted, rtol=1e-3, atol=1e-4)
        except (AttributeError, RuntimeError, TypeError):
            same = False
        if not same:
            raise Misfit(
                f'the stages of {named(model)} cannot be run one after the other to its logits, so '
                'it cannot carry on with the map of another network. Take a ResNet.'
            )


def _is_resnet(model: nn.Module) -> bool:
    """Whether the backbone is built like mmdet's ResNet."""
    names = getattr(model.backbone, 'res_layers', None)
    if not names or not hasattr(model.backbone, 'maxpool'):
        return False
    return all(hasattr(getattr(model.backbone, name)[-1], 'relu') for name in names)


def _last_blocks(model: nn.Module) -> list[str]:
    backbone = model.backbone
    return [f'backbone.{name}.{len(getattr(backbone, name)) - 1}' for name in backbone.res_layers]


def _unknown(model: nn.Module, what: str) -> ValueError:
    return ValueError(
        f'Where the {what} of a {type(model.backbone).__name__} are is not known; name the taps '
        'yourself (student=, teacher=), mmkd plan lists candidates.'
    )


def labels(samples: list, device: torch.device | str = 'cpu') -> Tensor:
    """Class index of each image, (N,) long; of a mixture (mixup, CutMix) the heaviest class.

    Raises:
        ValueError: a sample without ``gt_label`` and ``gt_score``.
    """
    found = []
    for sample in samples:
        score, label = sample.get('gt_score', None), sample.get('gt_label', None)
        if score is None and label is None:
            raise ValueError(
                'This objective needs class labels, but the batch has samples without gt_label. '
                'Let the data pipeline pack it.'
            )
        label = label if score is None else score.argmax()
        found.append(torch.as_tensor(label, device=device).flatten()[:1])
    return torch.cat(found).long()


def sample_indices(samples: list, device: torch.device | str = 'cpu') -> Tensor:
    """Position of each image in the dataset, (N,) long; of a mixture that of the heaviest image.

    Raises:
        ValueError: a sample without ``sample_idx``.
    """
    found = [sample.metainfo.get('sample_idx') for sample in samples]
    if None in found:
        raise ValueError(
            'This objective remembers each image by its number, but the batch has samples without '
            "sample_idx. Let the data pipeline pack it: dict(type='mmkd.PackClassInputs') does."
        )
    return torch.as_tensor(found, device=device).long()


def classes(model: nn.Module) -> tuple[str, ...] | None:
    """Names of the classes in the order of the logits, None where they are not known."""
    names = (getattr(model, 'dataset_meta', None) or {}).get('classes')
    return None if names is None else tuple(names)
