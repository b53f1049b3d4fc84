"""The base class of methods whose student learns on images of a generator, without any data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from mmengine.dist import is_distributed
from torch import Tensor, nn

from mmkd.adapters.critic import judged
from mmkd.adapters.generator import STEP, Generator
from mmkd.families import classifier
from mmkd.families.comparable import Misfit
from mmkd.functional.device import upload
from mmkd.generators import step_generator
from mmkd.objective import Objective, Taps
from mmkd.options import check_number, check_size
from mmkd.pixels import Pixels
from mmkd.rows import logits
from mmkd.schedule import Progress
from mmkd.structures import LABELLED, ClassSample
from mmkd.tap import Recorder, Side, Tap, Trace
from mmkd.trains import keep_alive
from mmkd.untouched import buffers_aside


class GeneratorObjective(Objective):
    """Student and generator learn in turns: implement :meth:`student_loss` and
    :meth:`generator_losses`.

    Each step has one batch of images, generated in the student's normalised pixels. Student and
    teacher see them as they would see the data's, so that other objectives learn from them, too.
    The student's loss is a function of the taps. The generator's losses are functions of both
    networks, which run once more with a gradient in the images; their parameters are constants, and
    the student's BatchNorms take the statistics of the batch and keep their own. So each player
    gets a gradient from its own losses alone. Who has a turn is ``trains`` of the Distiller.

    Noise depends on the seed, on the number of the batch and on the rank, so ranks generate unlike
    images and a resumed run the same ones.

    Args:
        size (int | list[int]): height and width of the images, multiples of 4.
        latent (int | None): numbers in z; None: as published for the method.
        width (int): channels of the generator's first maps.
        optimizer (dict | None): the generator's, which follows the run's ``param_scheduler``; None:
            Adam with the published learning rate.
        seed (int): of the noise.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`; taps show
            logits.

    Raises:
        ValueError: options out of range; a learner that is a peer; no classifiers of equal classes,
            or of images of unequal channels.
    """

    makes_images = True
    asks_teacher = True
    label_free = True
    compares_classes = True
    own_losses: ClassVar[tuple[str, ...]] = ('loss_generator',)
    families = ('classifier',)
    #: all steps from one turn of the generator to the next have the same noise
    keeps_noise: ClassVar[bool] = False
    #: published: numbers in z, and the generator's learning rate
    usual_latent: ClassVar[int]
    usual_lr: ClassVar[float] = 1e-3
    generator: Generator
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        *taps: Taps,
        size: Any = 32,
        latent: int | None = None,
        width: int = 128,
        optimizer: Mapping[str, Any] | None = None,
        seed: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        name = type(self).__name__
        self.size = check_size(name, size)
        if any(side % STEP for side in self.size):
            raise ValueError(f'{name}: both sides of size must be multiples of 4, found {size!r}.')
        latent = self.usual_latent if latent is None else latent
        self.latent = check_number(name, 'latent', latent, 1, whole=True)
        self.width = check_number(name, 'width', width, 1, whole=True)
        self.optimizer = dict(optimizer or dict(type='Adam', lr=self.usual_lr))
        self.seed = check_number(name, 'seed', seed, 0, whole=True)
        self.made: Tensor | None = None

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        if self.learner != 'student':
            raise ValueError(
                f'{type(self).__name__}: the images are for the student, so that '
                f'learner={self.learner!r} cannot learn from them.'
            )
        assert teacher is not None
        logits.bind_images(self, student, teacher)
        own, wanted = Pixels.of(student), Pixels.of(teacher)
        if own.channels != wanted.channels:
            raise Misfit(
                f'{type(self).__name__} shows both networks the same images, but those of the '
                f'teacher have {wanted.channels} channels and those of the student '
                f'{own.channels}. Take networks of equal channels.'
            )
        self.generator = Generator(self.latent, self.size, self.width, own.channels)
        #: the teacher's channels are the student's, reversed
        self.reversed = own.swapped != wanted.swapped and own.channels == 3
        grey = torch.zeros(1, own.channels, 1, 1)
        shift = wanted.renormalise(grey, own)
        self.register_buffer('shift', shift, persistent=False)
        self.register_buffer('scale', wanted.renormalise(grey + 1, own) - shift, persistent=False)

    # -------------------------------------------------------------------------------------- images

    def images(self, inputs: Tensor, progress: Progress) -> tuple[Tensor, list[ClassSample]]:
        """As many images as ``inputs`` has, (N, C, H, W) without a gradient, and their samples."""
        z = upload(self.noise(len(inputs), progress), inputs, torch.float32)
        learns = self.trains('objectives', progress) and self.weight(progress) > 0
        with torch.autocast(inputs.device.type, enabled=False):
            if learns:
                x = self.generator(z)
            else:
                with torch.no_grad(), buffers_aside(self.generator):
                    x = self.generator(z)
        self.made = x if learns else None
        meta = {LABELLED: False, 'img_shape': self.size, 'ori_shape': self.size}
        return x.detach(), [ClassSample(metainfo=dict(meta)) for _ in inputs]

    def noise(self, count: int, progress: Progress) -> Tensor:
        """z ~ N(0, 1) of a step, (N, Z)."""
        turn = self.trains.turns.get('objectives')
        every = turn.every if turn is not None and self.keeps_noise else 1
        drawn = step_generator(self.seed, progress.step // every)
        return torch.randn(count, self.latent, generator=drawn)

    # -------------------------------------------------------------------------------------- losses

    def student_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Loss of the student, from logits (N, K)."""
        raise NotImplementedError(f'{type(self).__name__} has no student_loss(student, teacher).')

    def generator_losses(self, images: Tensor, trace: Trace) -> dict[str, Tensor]:
        """Losses of the generator, from its images (N, C, H, W)."""
        raise NotImplementedError(f'{type(self).__name__} has no generator_losses(images, trace).')

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        images, self.made = self.made, None
        # Who rests has losses of 0, so that means over steps in the log add up.
        resting = trace.inputs.new_zeros(())
        losses = dict.fromkeys(('loss_student', *self.own_losses), resting)
        if self.trains('student', trace.progress):
            student = trace.student[self.student_taps[0]][0]
            teacher = trace.teacher[self.teacher_taps[0]][0].detach()
            losses['loss_student'] = self.student_loss(student, teacher)
        if images is not None:
            losses |= self.generator_losses(images, trace)
        elif is_distributed():  # it waits for every gradient
            losses |= keep_alive(self.own_losses[0], self.generator.parameters())
        return losses

    def asked_student(self, images: Tensor, trace: Trace) -> Tensor:
        """The student's logits (N, K), with a gradient in the images and in nothing else."""
        model = trace.student.model
        with buffers_aside(model):
            return judged(model, images).float()

    def asked_teacher(self, images: Tensor, trace: Trace, *taps: Tap) -> Side:
        """What the teacher shows at its taps, and others, with a gradient in the images."""
        network = classifier.in_precision(trace.teacher.model, torch.float32)
        images = (images.flip(1) if self.reversed else images) * self.scale + self.shift
        with Recorder(network, [*self.teacher_taps, *taps]).record(images) as side:
            network(images, mode='tensor')
        return side

    def describe(self) -> list[str]:
        """Size of the generator and of its images."""
        count = sum(p.numel() for p in self.generator.parameters())
        height, width = self.size
        return [f'generator of {count:,} parameters, images of {height} x {width} pixels']
