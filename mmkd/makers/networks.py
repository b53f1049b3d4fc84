"""Networks that a maker gets, and those that it writes."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmkd.adapters.fake_quant import latent_modules
from mmkd.chain import Product
from mmkd.checkpoint import atomic_file
from mmkd.checkpoint.edit_record import EditRecord
from mmkd.config import load_config
from mmkd.engine.student_config import student_config, write_config
from mmkd.families import family_of
from mmkd.families.class_heads import Labels, wrong_heads
from mmkd.teacher import Teacher, build_model, load_strictly

Network = TypeVar('Network', nn.Module, Teacher)


def only_network(owner: str, given: Mapping[str, Product]) -> Product:
    """The one network that a maker works on.

    Raises:
        ValueError: none, or several.
    """
    if len(given) != 1:
        raise ValueError(
            f'{owner} needs one network: teacher= or student= of the stage, or --teacher '
            f'CONFIG CHECKPOINT of mmkd make; found {", ".join(given) or "none"}.'
        )
    return next(iter(given.values()))


def given_teacher(owner: str, given: Mapping[str, Product], what: str = 'teacher') -> Product:
    """The trained network that a maker asks.

    Args:
        what (str): its part, for the message.

    Raises:
        ValueError: there is none.
    """
    if 'teacher' not in given:
        raise ValueError(
            f'{owner} needs a {what}: teacher= of the stage, or --teacher CONFIG CHECKPOINT of '
            'mmkd make.'
        )
    return given['teacher']


def given_classifier(owner: str, given: Mapping[str, Product]) -> Teacher:
    """The same, loaded, of an image classifier.

    Raises:
        ValueError: there is none; another network.
    """
    source = given_teacher(owner, given)
    teacher = Teacher(source.config, source.checkpoint)
    check_classifier(owner, teacher.model)
    return teacher


def check_classifier(owner: str, model: nn.Module) -> None:
    """ValueError for a network that is no image classifier."""
    if family_of(model) != 'classifier':
        raise ValueError(f'{owner} needs an image classifier, found {type(model).__name__}.')


def named_classes(owner: str, model: nn.Module, given: Sequence[str] | None) -> list[str]:
    """Names of a teacher's classes: those given, else those in its checkpoint.

    Raises:
        ValueError: there are none, or not as many as its heads have outputs for.
    """
    names = given or (getattr(model, 'dataset_meta', None) or {}).get('classes')
    if not names:
        raise ValueError(
            f'{owner}: the checkpoint does not name the classes of the teacher; give them by '
            'classes=.'
        )
    for head in wrong_heads(model, Labels(tuple(names)))[:1]:
        raise ValueError(
            f'{owner}: {len(names)} classes are named, but {head.path or "the teacher"} has '
            f'{head.found}. Name its classes by classes=.'
        )
    return [str(name) for name in names]


def on_gpu(network: Network) -> Network:
    """It itself, moved to a GPU where there is one."""
    return network.to('cuda') if torch.cuda.is_available() else network


def load_network(owner: str, given: Mapping[str, Product]) -> tuple[Config, nn.Module]:
    """That network with its weights, and the config of it alone.

    Raises:
        ValueError: none, or several; weights that do not fit.
    """
    source = only_network(owner, given)
    config = student_config(load_config(source.config))
    model = build_model(config)
    load_strictly(model, source.checkpoint, who=owner)
    return config, model


def load_for_reshaping(owner: str, given: Mapping[str, Product]) -> tuple[Config, nn.Module]:
    """:func:`load_network` for a maker that gives layers other shapes.

    Raises:
        ValueError: also a network that rounds its weights itself: numbers that it learned beside
            them have the old shapes.
    """
    config, model = load_network(owner, given)
    if found := next(latent_modules(model), None):
        raise ValueError(
            f'{owner} changes the shapes of layers, but an edit (FakeQuant with acts) rounds the '
            f'weight of {found[0]} when it is used. Change the float network first, and quantise '
            'what comes out.'
        )
    return config, model


def write_network(
    work_dir: str,
    name: str,
    config: Config,
    state: Mapping[str, Tensor],
    record: EditRecord | None = None,
) -> Product:
    """``<name>.py`` and ``<name>.pth`` in a folder.

    Args:
        record (EditRecord | None): of edits that are in the weights.
    """
    path = osp.join(work_dir, name)
    write_config(config, f'{path}.py')
    saved = dict(state_dict=state, meta={})
    if record is not None:
        record.write(saved)
    with atomic_file(f'{path}.pth') as part:
        torch.save(saved, part)
    return Product(f'{path}.py', f'{path}.pth', work_dir)
