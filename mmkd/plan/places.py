"""Which taps give places of the picture, and which give boxes or queries of the network.

Row 5 of a second stage is another box in the student than in the teacher, query 5 of a decoder is
matched to another object. Methods that compare row by row need rows that the picture fixes:
images, cells of a map, tokens of patches.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from mmkd.families import family_of, is_two_stage, is_weak, segmentor
from mmkd.families.comparable import Misfit
from mmkd.families.two_stage import features_tap
from mmkd.functional.nested import flatten
from mmkd.levels import Level
from mmkd.objective import Objective
from mmkd.plan.probe import BODY, Found, Request, levels_at, probe_all
from mmkd.tap import Side, Tap, only_holds

BOXES, POINTS = 'boxes that it proposes itself', 'points that it picks itself'
QUERIES = 'queries or other rows in an order of its own'


def check_places(objective: Objective, *networks: Found | None) -> None:
    """Refuse taps in the config whose rows are different samples in the two networks.

    Methods that evaluate both networks on the student's RoIs choose their taps themselves. A
    student that looks at several views of an image in training has other maps than its teacher.

    Raises:
        Misfit: such a tap, of student or teacher.
    """
    if len(networks) > 1 and networks[0] is not None:
        _check_views(objective, networks[0].model)
    for found in networks:
        named = [tap for tap in found.taps if tap in objective.asked_taps] if found else []
        for tap, rows in own_rows(found, named).items():
            raise Misfit(
                f"{type(objective).__name__} compares row by row, but '{tap}' of the {found.who} "
                f'{type(found.model).__name__} shows {rows}, so that rows of student and teacher '
                f'are of different places; tap maps, such as {_maps(found.model)!r}.',
                prefer=('Mimic',) * (rows == BOXES),
            )


def _check_views(objective: Objective, student: nn.Module) -> None:
    views = getattr(student, 'views', ()) if is_weak(student) else ()
    maps = [tap for tap in objective.student_taps if tap.path.split('.')[0] in BODY]
    if views and maps:
        raise Misfit(
            f"{type(objective).__name__} compares maps, but '{maps[0]}' of the student "
            f'{type(student).__name__} runs {len(views) + 1} times in a training step, on the '
            f'image and on its views ({", ".join(views)}), and that of the teacher once. Train a '
            'student without views (views=[]).'
        )


def _maps(model: nn.Module) -> str:
    """A tap at maps of a model."""
    if family_of(model) == 'segmentor':
        return segmentor.feature_tap(model)
    return features_tap(model)


def own_rows(found: Found, taps: Iterable[Tap]) -> dict[Tap, str]:
    """The taps whose rows are not places of the picture, with the kind of their rows.

    The number of places grows with the picture, that of queries and pooled boxes does not; a
    doubtful tap is probed with a second, larger picture.
    """
    first = {tap: _tensors(found.evaluated or found.trained, tap) for tap in taps}
    first = {
        tap: seen
        for tap, seen in first.items()
        if tap.path.split('.')[0] not in BODY and not tap.scores
    }
    behind = {tap: _behind(found.model, tap) for tap in first}
    doubtful = [t for t, seen in first.items() if behind[t] or not all(map(_is_plain, seen))]
    if not doubtful:
        return {}
    fired = [tap for tap in doubtful if first[tap]]
    again = Request(found.who, found.model, fired).run(found.size * 3 // 2).evaluated
    rows = {}
    for tap in doubtful:
        second = _tensors(again, tap)
        pairs = list(zip(first[tap], second, strict=False))
        whole = bool(pairs) and len(first[tap]) == len(second)
        if not whole or not all(_grows(a, b, found.model) for a, b in pairs):
            rows[tap] = behind[tap] or QUERIES
    return {tap: text for tap, text in rows.items() if behind[tap] or again is not None}


def _tensors(side: Side | None, tap: Tap) -> list[Tensor]:
    """Everything at a tap's source, whatever its index."""
    return [t for t in flatten(side.raw(tap)) if t.dim()] if side else []


def _behind(model: nn.Module, tap: Tap) -> str:
    """The kind of rows of a tap in a part for boxes, queries or points, unless it is a map."""
    root, *rest = tap.path.split('.')
    if root == 'roi_head' and is_two_stage(model):
        return BOXES
    if root == 'panoptic_head' or (family_of(model) == 'detr' and root in ('decoder', 'bbox_head')):
        return QUERIES
    if root != 'decode_head' or not rest:
        return ''
    heads = model.decode_head
    if isinstance(heads, nn.ModuleList):
        return '' if segmentor.gives_logits(heads[int(rest[0])]) else POINTS
    return '' if segmentor.gives_logits(heads) else QUERIES


def _is_plain(tensor: Tensor) -> bool:
    """A map (1, C, H, W) or a vector (1, C) of the one image."""
    return len(tensor) == 1 and tensor.dim() in (2, 4)


def _grows(small: Tensor, large: Tensor, model: nn.Module) -> bool:
    """Whether rows are places or classes of a picture, by one and another of 1.5 times the side."""
    if small.dim() != large.dim():
        return False
    if len(small) != 1:  # cells of all images in one row
        return abs(len(large) / len(small) / 1.5**2 - 1) < 0.05
    if small.dim() > 2 and _is_segmentor_of(small.shape[1], model):
        return True
    return small.dim() <= 4 and large.numel() > 1.5 * small.numel()


def _is_segmentor_of(rows: int, model: nn.Module) -> bool:
    """Whether pixels are classified by one row per class, as in Segmenter and K-Net."""
    if family_of(model) != 'segmentor' or not segmentor.gives_logits(
        segmentor.decode_head(model)[0]
    ):
        return False
    return rows == segmentor.classes(model)


def candidates(model: nn.Module, depth: int = 2) -> list[tuple[str, list[Level]]]:
    """Taps down to ``depth`` dots that record in a probe and give places of the picture."""
    names = [n for n, m in model.named_modules() if n.count('.') < depth and not only_holds(m)]
    taps = [Tap.parse(n) for n in names if n and not n.startswith('data_preprocessor')]
    (found,) = probe_all([Request('model', model, taps)])
    side = found.evaluated
    if side is None:
        raise RuntimeError(f'{type(model).__name__} could not be probed: {found.reason}.')
    fired = [tap for tap in taps if flatten(side.raw(tap))]
    rows = own_rows(found, fired)
    return [(str(tap), levels_at(side, [tap]) or []) for tap in fired if tap not in rows]
