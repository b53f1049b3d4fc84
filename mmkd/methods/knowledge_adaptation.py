"""KnowledgeAdaptation: KL divergence to a teacher of another domain, partly hard where trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.families import classifier
from mmkd.families.comparable import check_same
from mmkd.functional.logit_distances import soft_kl
from mmkd.names import no_file
from mmkd.objective import Objective, Taps
from mmkd.options import check_number, check_temperature
from mmkd.registry import MODELS
from mmkd.rows import logits
from mmkd.tap import Trace


def adapted_target(teacher: Tensor, trusted: Tensor, lam: float) -> Tensor:
    """``(1 - lam) onehot(argmax p) + lam p`` of trusted rows, p of the others.

    Args:
        teacher (Tensor): probabilities p, (N, K).
        trusted (Tensor): (N,) bool.
        lam (float): share of p; 1 is p, 0 the hard label.
    """
    hard = F.one_hot(teacher.argmax(1), teacher.shape[1]).to(teacher)
    return torch.where(trusted[:, None], (1 - lam) * hard + lam * teacher, teacher)


@MODELS.register_module()
class KnowledgeAdaptation(Objective):
    """Knowledge adaptation: teaching to adapt.

    Ruder et al., 2017: a teacher of one domain teaches a student on images of another, unlabelled
    one. Images that the teacher places clearly (``mmkd make TrustedImages``) get a mixture of its
    prediction as a hard label and of its probabilities; the others get its probabilities, as in KD.
    For several teachers there is ``mmkd.Ensemble(weights=…)`` with a file of ``mmkd make
    DomainWeights``.

    The paper is about texts; its share of trusted examples and lambda are not settled for images.

    Args:
        trusted (str | None): file of ``mmkd make TrustedImages``; ``None``: no image is trusted, so
            that it is KD.
        lam (float): share of the probabilities in the target of a trusted image, in [0, 1].
        tau (float): temperature of both networks.
        student, teacher, weight, teacher_name: see :class:`~mmkd.objective.Objective`.

    Raises:
        ValueError: options out of range; no image classifiers of equal classes; a file of other
            images than those of the training set.
        FileNotFoundError: the file does not exist.
    """

    over_scales = True
    families = ('classifier',)
    rank_invariant = True

    def __init__(
        self,
        *taps: Taps,
        trusted: str | None = None,
        lam: float = 0.5,
        tau: float = 4.0,
        **common: Any,
    ) -> None:
        super().__init__(*taps, **common)
        self.file = trusted
        self.lam = check_number('KnowledgeAdaptation', 'lam', lam, 0, 1)
        self.tau = check_temperature('KnowledgeAdaptation', tau)
        self.known: frozenset[str] | None = None if trusted else frozenset()

    def bind(self, student: nn.Module, teacher: nn.Module | None) -> None:
        assert teacher is not None
        logits.check_kinds('KnowledgeAdaptation', student, teacher, kinds=('images',))
        classifier.choose_taps(self, classifier.logits_tap, student, teacher)
        counts = (model.head.fc.out_features for model in (student, teacher))
        check_same('KnowledgeAdaptation', 'class counts', *counts)

    def check_dataset(self, dataset: Any) -> None:
        if self.file is None:
            return
        count = len(dataset)
        paths = {str(dataset.get_data_info(i).get('img_path')) for i in range(count)}
        found = len(paths & self._trusted())
        if not found:
            raise ValueError(
                f'KnowledgeAdaptation: none of the {len(self._trusted())} images in {self.file} is '
                f'among the {count} of the training set. Paths have to be equal: write the file '
                'for this training set, with mmkd make TrustedImages.'
            )

    def _trusted(self) -> frozenset[str]:
        if self.known is None:
            path = Path(str(self.file))
            if not path.is_file():
                raise FileNotFoundError(
                    f'KnowledgeAdaptation: trusted: {no_file(path, ".json")} Write it with '
                    'mmkd make TrustedImages.'
                )
            self.known = frozenset(json.loads(path.read_text())['images'])
        return self.known

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        student = trace.student[self.student_taps[0]][0]
        teacher = trace.teacher[self.teacher_taps[0]][0].detach()
        known = self._trusted()
        rows = [str(sample.metainfo.get('img_path')) in known for sample in trace.samples]
        count = torch.tensor(float(sum(rows)), device=student.device)
        if not any(rows):
            return {'loss': soft_kl(student, teacher, self.tau).mean(), 'trusted': count}
        probabilities = (teacher / self.tau).softmax(1)
        target = adapted_target(probabilities, torch.tensor(rows, device=student.device), self.lam)
        log_s = F.log_softmax(student / self.tau, 1)
        rest = F.kl_div(log_s, target, reduction='none').sum(1) * self.tau**2
        return {'loss': rest.mean(), 'trusted': count}

    def describe(self) -> list[str]:
        if self.file is None:
            return ['no file of trusted images: KD']
        return [f'trusted images of {self.file}: {1 - self.lam:g} of the target is the hard label']
