"""Batches in which some images have no labels: who learns from those, and how it is added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from torch import Tensor

from mmkd.datasets.protection import leaves
from mmkd.datasets.unlabelled import AlternatingSampler, ImageFolder, MixedSampler
from mmkd.plan.probe import run_to_taps
from mmkd.schedule import Progress
from mmkd.structures import LABELLED

Batch = tuple[Tensor, list]


def split_batch(inputs: Tensor, samples: Any) -> tuple[Batch, Batch | None]:
    """The labelled images of a batch, and those without labels; None where all have some.

    Raises:
        ValueError: no image has labels.
    """
    known = [sample.metainfo.get(LABELLED, True) for sample in samples or ()]
    if all(known):
        return (inputs, samples), None
    if not any(known):
        raise ValueError(
            'A batch has no labelled image, for which the student has its own losses. Mix them '
            'with mmkd.MixedSampler, or train without those losses: task_weight=None.'
        )
    parts = []
    for wanted in (True, False):
        chosen = [i for i, own in enumerate(known) if own is wanted]
        where = torch.tensor(chosen, device=inputs.device)
        parts.append((inputs.index_select(0, where), [samples[i] for i in chosen]))
    return parts[0], parts[1]


def listens_without_labels(objective: Any) -> bool:
    """Whether an objective reads no ground truth, as it is bound and set."""
    reads_some = objective.needs_ground_truth or getattr(objective, 'mask_ignore', False)
    return bool(objective.label_free) and not reads_some


def add_unlabelled(
    distiller: Any,
    terms: dict[str, dict[str, Tensor]],
    weights: Mapping[str, float],
    active: Sequence[str],
    batch: Batch,
    labelled: int,
    progress: Progress,
) -> None:
    """Let what reads no ground truth learn from images without labels, too.

    The student runs once more, as far as the taps and without its own losses.

    Args:
        distiller (Distiller): of the step.
        terms (dict[str, dict[str, Tensor]]): of the ``labelled`` images, by objective; changed.
        weights (Mapping[str, float]): of each objective in this step.
        active (Sequence[str]): objectives of weight above 0.
        batch (tuple[Tensor, list]): pixels and samples of the others.
    """
    named = {name: distiller.objectives[name] for name in active}
    listen = [
        name
        for name, objective in named.items()
        if objective.learner == 'student' and listens_without_labels(objective)
    ]
    if not listen:
        return
    inputs, samples = batch
    sides = distiller._run_teachers(listen, inputs, samples)
    with distiller.timer('student'), distiller.recorder.record(inputs) as student:
        taps = distiller.plan.taps_of('student', listen)
        run_to_taps(distiller.student, taps, inputs, samples)
    for name, side in sides.items():
        distiller.teachers[name].join(side)
    for name in listen:
        trace = distiller.trace(name, {'student': (student, samples)}, sides, progress)
        found = distiller._terms(name, weights[name], trace)
        sums = [f'kd.{name}.{key}' for key in distiller.objectives[name].adds_up]
        terms[name] = joined(terms[name], found, (labelled, len(samples)), sums)


def joined(
    labelled: Mapping[str, Tensor],
    free: Mapping[str, Tensor],
    counts: Sequence[int],
    sums: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Terms of one objective over a whole batch, whose losses are means over images.

    Args:
        labelled, free (Mapping[str, Tensor]): of the images with and without labels.
        counts (Sequence[int]): how many of both there are.
        sums (Sequence[str]): losses that are sums over images.
    """
    n, m = counts
    whole = dict(labelled)
    for key in set(labelled) | set(free):
        if '.loss' in key:
            parts = labelled.get(key, 0.0), free.get(key, 0.0)
            mean = (n * parts[0] + m * parts[1]) / (n + m)
            whole[key] = parts[0] + parts[1] if key in sums else mean
    return whole


def check_listeners(objectives: Mapping[str, Any], dataset: Any, tasks: bool) -> None:
    """Refuse a run on images without any labels for what needs some.

    Where some images have labels and nobody learns from the others, it warns; also where an
    ImageFolder is not marked as Unlabelled.

    Args:
        dataset (Any): the training set.
        tasks (bool): the student has its own losses.

    Raises:
        ValueError: nobody could compute a loss; the message names what can.
    """
    if not all(_unlabelled(dataset)):
        _warn_of_idle(objectives, dataset)
        if tasks:
            _warn_of_unmarked(dataset)
        return
    if tasks:
        raise ValueError(
            'No image of the training set has labels, for which the student has its own losses. '
            'Join it with a labelled set (ConcatDataset and mmkd.MixedSampler), or train without '
            'those losses: task_weight=None.'
        )
    needy = [name for name, one in objectives.items() if not listens_without_labels(one)]
    if needy:
        fine = [name for name in objectives if name not in needy]
        kinds = ', '.join(type(objectives[name]).__name__ for name in needy)
        beside = f' {", ".join(fine)} can.' if fine else ' CWD, PKD and AT can, for instance.'
        raise ValueError(
            f'No image of the training set has labels, and {", ".join(needy)} ({kinds}) cannot do '
            f'without.{_reasons(objectives)}{beside}'
        )


def _warn_of_idle(objectives: Mapping[str, Any], dataset: Any) -> None:
    own = {name: one for name, one in objectives.items() if one.learner == 'student'}
    if not any(_unlabelled(dataset)) or any(map(listens_without_labels, own.values())):
        return
    kinds = ', '.join(f'{name} ({type(one).__name__})' for name, one in own.items())
    print_log(
        f'No objective learns from the images without labels: {kinds or "none there is"} cannot '
        f'do without.{_reasons(own)} Add one that can, such as CWD, PKD or AT, or leave these '
        'images out.',
        logger='current',
        level=30,
    )


def _reasons(objectives: Mapping[str, Any]) -> str:
    """A sentence for each that says what it needs labels for."""
    known = {name: getattr(one, 'why_labels', '') for name, one in objectives.items()}
    return ''.join(f' {name}: {why}.' for name, why in known.items() if why)


def _warn_of_unmarked(dataset: Any) -> None:
    if any(type(one) is ImageFolder and not all(_unlabelled(one)) for one in leaves(dataset)):
        print_log(
            'An ImageFolder has no annotations, so the student learns its images as background. '
            "Wrap it, dict(type='mmkd.Unlabelled', dataset=…), unless they show no object.",
            logger='current',
            level=30,
        )


def check_mixture(loader: Any) -> None:
    """Our samplers decide what a batch is, so that nothing may deal its images out anew.

    Raises:
        ValueError: batches of another size, a batch sampler that sorts images, batches of an
            AlternatingSampler that may be without labels, or another sampler in several processes.
    """
    sampler, batches = getattr(loader, 'sampler', None), getattr(loader, 'batch_sampler', None)
    if not isinstance(sampler, (MixedSampler, AlternatingSampler)) or batches is None:
        if get_world_size() > 1 and len({*_unlabelled(loader.dataset)}) > 1:
            raise ValueError(
                'Some images of the training set are Unlabelled, and its sampler does not mix them '
                'into every batch: a process whose batch has some would wait for those whose batch '
                "has none. Set sampler=dict(type='mmkd.MixedSampler', batch_size=…)."
            )
        return
    owner = type(sampler).__name__
    kind, size = type(batches).__name__, getattr(batches, 'batch_size', None)
    if kind != 'BatchSampler' or size != sampler.batch_size:
        raise ValueError(
            f'{owner} makes batches of {sampler.batch_size}, but the dataloader has '
            f'batch_size={size} and batch_sampler={kind}. Set both sizes alike, and '
            'batch_sampler=None.'
        )
    if isinstance(sampler, AlternatingSampler) and any(_unlabelled(loader.dataset)):
        raise ValueError(
            'AlternatingSampler makes batches that may have no labelled image, and some of the '
            'training set are Unlabelled. Give those pseudo labels (mmkd make PseudoLabels), or '
            'mix every batch with mmkd.MixedSampler.'
        )


def _unlabelled(dataset: Any) -> list[bool]:
    """Of each dataset inside wrappers, whether its labels are seen by nobody."""
    return [bool(getattr(one, 'no_labels', False)) for one in leaves(dataset)]
