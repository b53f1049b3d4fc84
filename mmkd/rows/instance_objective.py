"""The base class of losses on relations: rows of instances instead of maps."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from mmkd.families import WITH_INSTANCES, classifier
from mmkd.levels import Level
from mmkd.objective import Objective, Taps
from mmkd.rows.instances import Instances
from mmkd.tap import Trace


class InstanceObjective(Objective):
    """Compare the rows of instances, layer by layer: implement :meth:`compare`, nothing else.

    An instance is an image, an object of a detector or a region of a segmentor, see
    :class:`~mmkd.rows.instances.Instances`. Layers of student and teacher are partners by position,
    of any widths; the results are summed.

    Args:
        instances (str | None): the rows to compare: ``'images'``, ``'boxes'`` of the ground truth,
            or ``'regions'``, the mean of each class in each image; ``None`` chooses by the
            student's family.
        gather (bool): compare the instances of all ranks, not only of one's own.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: unknown instances; unequally many layers; models that do not fit.
    """

    rank_invariant = True
    over_scales = True
    families: ClassVar[tuple[str, ...]] = WITH_INSTANCES
    named_taps: ClassVar[tuple[str, ...]] = ('yolo',)
    #: maps are averaged over places; False flattens them
    pooled: ClassVar[bool] = True

    def __init__(
        self, *taps: Taps, instances: str | None = None, gather: bool = True, **common: Any
    ) -> None:
        super().__init__(*taps, **common)
        self.instances = Instances(type(self).__name__, instances, gather, self.pooled)

    @staticmethod
    def taps_of(model: nn.Module) -> str | list[str]:
        """Taps of a classifier where the config names none."""
        return classifier.embedding_tap(model)

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self.instances.bind(self, self.taps_of, student, teacher)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        self.instances.setup(student, teacher)

    def forward(self, trace: Trace) -> Tensor | dict[str, Tensor]:
        pairs = self.instances.pairs(trace, self)
        return {'loss': sum(self.compare(student, teacher) for student, teacher in pairs)}

    def compare(self, student_rows: Tensor, teacher_rows: Tensor) -> Tensor:
        """Loss of one layer, rows (R, D_s) and (R, D_t) of the same instances; a scalar."""
        name = type(self).__name__
        raise NotImplementedError(f'{name} has no compare(student_rows, teacher_rows).')

    def describe(self) -> list[str]:
        return self.instances.describe()
