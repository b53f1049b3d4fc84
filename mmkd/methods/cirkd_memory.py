"""CIRKDMemory: KL divergence of similarities to a memory bank of pixels and class regions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmkd.adapters.queue import Queue
from mmkd.families import segmentor
from mmkd.functional.device import upload
from mmkd.functional.gather import all_gather_rows
from mmkd.functional.relations import smooth_unit
from mmkd.functional.similarity_kl import similarity_kl
from mmkd.generators import step_generator
from mmkd.levels import Level, seen_by_teacher
from mmkd.objective import Objective, Taps
from mmkd.options import check_choice, check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.tap import Trace


def memory_kl(student: Tensor, teacher: Tensor, bank: Tensor, tau: float = 0.1) -> Tensor:
    """Mean over pixels of ``KL(softmax_j(t . b_j / tau) || softmax_j(s . b_j / tau))``.

    Args:
        student, teacher (Tensor): pixels of length one, (R, C).
        bank (Tensor): entries of length one, (M, C).
        tau (float): temperature.
    """
    if not len(student):
        return student.sum() * 0.0
    keys = bank[None]
    return similarity_kl((student, teacher), (keys, keys), tau) / len(student)


def region_rows(rows: Tensor, region: Tensor, count: int) -> Tensor:
    """Mean of the pixels (P, C) of each region, of length one, (count, C).

    Args:
        region (Tensor): (P,) long, the region that a pixel lies in, -1 for none.
    """
    weight = (region == torch.arange(count, device=rows.device)[:, None]).to(rows)
    return smooth_unit(weight @ rows / weight.sum(1, keepdim=True))


@MODELS.register_module()
class CIRKDMemory(Objective):
    """Cross-image relational knowledge distillation, the two memory terms.

    Yang et al., CVPR 2022, eqs. 7-12: similarities of each labelled pixel to remembered pixels
    and to remembered regions (means of one class in one image) of the teacher, of all classes
    alike. The student's pass a projection to the teacher's width first. Settings of winycg/CIRKD,
    whose recipe adds ``CIRKD`` (weight 1) and ``SKDPixel`` (weight 1). Without taps: the features
    before the classifier.

    In each step every image of all ranks first adds the mean of each of its classes and up to 16
    pixels of each to the queues; then entries are drawn. The published code takes those pixels from
    anywhere in the image, whatever the class (``variant='code'``).

    Args:
        weight: 0.1; 0.01 for Pascal VOC.
        tau (float): temperature of the similarities.
        pixel_size, region_size (int | None): entries of a class. ``None``: 20,000 pixels (2,000
            above 50 classes, which would take gigabytes) and 2,000 regions.
        pixels, regions (int): entries drawn in each step, divided among the classes.
        pushed (int): pixels of each class that an image adds.
        variant (str): ``'paper'`` or ``'code'``, see above.
        persistent (bool): queues are part of checkpoints. Without, a resumed run starts them anew.
        seed (int): of the draws, which depend on it, on the iteration and on the rank only.
        ignore_index (int): label of ignored pixels.
        student, teacher, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; models without a decode head; no labels; a label out of
            range in the first batch; maps of unequal size.
    """

    default_weight = 0.1
    needs_ground_truth = True
    zero_at_equality = False
    scheduled = ('tau',)
    over_scales = True
    families = ('segmentor',)

    def __init__(
        self,
        *taps: Taps,
        tau: float = 0.1,
        pixel_size: int | None = None,
        region_size: int | None = None,
        pixels: int = 4096,
        regions: int = 1024,
        pushed: int = 16,
        variant: str = 'paper',
        persistent: bool = True,
        seed: int = 0,
        ignore_index: int = 255,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        name = 'CIRKDMemory'
        self.tau = check_temperature(name, tau)
        self.sizes = tuple(
            check_number(name, option, value, 1, whole=True, optional=True)
            for option, value in (('pixel_size', pixel_size), ('region_size', region_size))
        )
        self.drawn = tuple(
            check_number(name, option, value, 1, whole=True)
            for option, value in (('pixels', pixels), ('regions', regions))
        )
        self.pushed = check_number(name, 'pushed', pushed, 1, whole=True)
        self.variant = check_choice(name, 'variant', variant, ('paper', 'code'))
        self.persistent = persistent
        self.seed = check_number(name, 'seed', seed, 0, whole=True)
        self.ignore_index = check_number(name, 'ignore_index', ignore_index, whole=True)
        self.classes = 0

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        segmentor.check_labelled('CIRKDMemory', student)
        segmentor.bind_features(self, student, teacher)
        self.classes = max(segmentor.classes(student), 2)  # one sigmoid output tells two apart
        many = self.classes > 50
        self.sizes = (self.sizes[0] or (2000 if many else 20000), self.sizes[1] or 2000)

    def setup(self, student: list[Level] | None, teacher: list[Level] | None) -> None:
        if not student or not teacher or len(student) != 1 or len(teacher) != 1:
            raise ValueError('CIRKDMemory compares one map of each network; name one tap of each.')
        seen = seen_by_teacher(student, self.image_scale)
        strides = [levels[0].stride for levels in (seen, teacher)]
        if None not in strides and strides[0] != strides[1]:
            raise ValueError(
                f'CIRKDMemory compares maps cell by cell, but the stride of the student is '
                f"{strides[0]} and the teacher's {strides[1]}; use models of equal stride, or name "
                'taps of one.'
            )
        wide = teacher[0].channels
        self.projection = nn.Sequential(
            nn.Conv2d(student[0].channels, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 1, bias=False),
        )
        self.pixel_queue = Queue(self.classes, self.sizes[0], wide, self.persistent)
        self.region_queue = Queue(self.classes, self.sizes[1], wide, self.persistent)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        student = self.projection(trace.student[self.student_taps[0]][0])
        teacher = trace.teacher[self.teacher_taps[0]][0].detach()
        if student.shape != teacher.shape:
            raise ValueError(
                f'CIRKDMemory: projected maps of the student {tuple(student.shape)} and maps of '
                f'the teacher {tuple(teacher.shape)} differ in size; use models of equal stride.'
            )
        student, teacher = (smooth_unit(x.permute(0, 2, 3, 1)) for x in (student, teacher))
        labels = segmentor.known_labels(
            self, trace.samples, self.classes, self.ignore_index, teacher.shape[1:3]
        )
        keep = (labels >= 0).flatten().nonzero()[:, 0]
        own, wanted = (x.flatten(0, 2)[keep] for x in (student, teacher))
        generator = step_generator(self.seed, trace.progress.iteration)
        if self.training:
            self.remember(teacher, labels, generator)
        result = {}
        for key, queue, total in (
            ('loss_pixel', self.pixel_queue, self.drawn[0]),
            ('loss_region', self.region_queue, self.drawn[1]),
        ):
            bank = queue.draw(total // self.classes + 1, generator)
            result[key] = memory_kl(own, wanted, bank, self.tau)
        result['loss_pixel'] = result['loss_pixel'] + student.sum() * 0.0
        return result

    def describe(self) -> list[str]:
        lines = []
        for name, queue in (('pixels', self.pixel_queue), ('regions', self.region_queue)):
            shape, size = ' x '.join(map(str, queue.entries.shape)), queue.entries.nbytes / 1e6
            lines.append(f'remembers {name}, {shape}, {size:.0f} MB')
        return lines

    @torch.no_grad()
    def remember(self, teacher: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        """Push class means and some pixels of each image, of all ranks.

        Args:
            teacher (Tensor): pixels of length one, (N, h, w, C).
            labels (Tensor): (N, h, w) long, -1 for those without a class.
        """
        rows, numbers = teacher.flatten(0, 2), torch.arange(labels.numel())
        where: list[Tensor] = [numbers[:0]]
        classes: tuple[list[int], list[int]] = ([], [])
        on_cpu = labels.cpu().flatten(1)  # the only wait for the device
        region_of = torch.full_like(on_cpu, -1)
        for image, own in enumerate(on_cpu):
            for k in own.unique().tolist():
                if k < 0:
                    continue
                members = (own == k).nonzero()[:, 0]
                region_of[image, members] = len(classes[0])
                classes[0].append(k)
                order = torch.randperm(len(members), generator=generator)[: self.pushed]
                where.append(
                    image * len(own) + (order if self.variant == 'code' else members[order])
                )
                classes[1].extend([k] * len(order))
        pixels = rows[upload(torch.cat(where), rows, torch.long)]
        regions = region_rows(rows, upload(region_of.flatten(), labels), len(classes[0]))
        for queue, found, names in (
            (self.region_queue, regions, classes[0]),
            (self.pixel_queue, pixels, classes[1]),
        ):
            queue.push(all_gather_rows(found), all_gather_rows(upload(names, labels)))
