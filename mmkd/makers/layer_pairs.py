"""LayerPairs: which layers of a teacher are nearest to those of a student, for InformationFlow."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.registry import init_default_scope
from torch import Tensor

from mmkd.chain import Maker, Product
from mmkd.chain.product import write_json
from mmkd.checkpoint import weights_of
from mmkd.config import load_config
from mmkd.engine.console.screen import current_screen
from mmkd.engine.launch import apply_options
from mmkd.makers.networks import on_gpu
from mmkd.makers.pictures import training_batches
from mmkd.methods.information_flow import InformationFlow, flow_divergence
from mmkd.options import check_number
from mmkd.plan.probe import run_to_taps
from mmkd.registry import MAKERS, MODELS
from mmkd.rows.vectors import side_rows
from mmkd.teacher import load_strictly
from mmkd.untouched import buffers_kept


def nearest_layers(divergence: Tensor) -> list[tuple[int, int]]:
    """Pairs (student, teacher) of least divergence (L_s, L_t); the last layers are partners."""
    nearest = divergence[:-1, :-1].argmin(1).tolist() if divergence.shape[1] > 1 else []
    last = divergence.shape[0] - 1, divergence.shape[1] - 1
    return [*enumerate(nearest), last]


@MAKERS.register_module()
class LayerPairs(Maker):
    """The layers of a teacher that are nearest to each layer of a student, by Jeffreys divergence.

    Passalis et al., CVPR 2020, match layers whose similarities between images diverge least:
    :func:`~mmkd.methods.information_flow.flow_divergence`, the loss of InformationFlow itself,
    averaged over batches of training images. The last layers are always partners. ``pairs.json``
    has pairs and divergences; it is for ``pairs=`` of an InformationFlow.

    Args:
        config (str): of a run with an InformationFlow; a stage's ``teacher=`` replaces its teacher.
            ``student=`` is a trained student; without one its initial weights count, which say
            little.
        images (int): how many are compared, in batches of the config's size, at least two.
        objective (str | None): name of the InformationFlow, if there are several.
        options (dict): of that config, as ``--cfg-options``.

    Raises:
        ValueError: no InformationFlow, or several and no name; fewer than two images.
    """

    def __init__(
        self,
        config: str,
        images: int = 512,
        objective: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.options, self.objective = config, dict(options or {}), objective
        self.images = check_number('LayerPairs', 'images', images, 2, whole=True)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        config = load_config(self.config)
        apply_options(config, self.options)
        init_default_scope(config.get('default_scope') or 'mmengine')
        name = self._named(config)
        config.model.objectives = {name: dict(config.model.objectives[name], pairs=[(0, 0)])}
        if 'teacher' in given:
            source = given['teacher']
            config.model.teacher.update(config=source.config, checkpoint=source.checkpoint)
        distiller = MODELS.build(config.model).train()
        distiller.init_weights()
        if 'student' in given:
            source = given['student']
            file = weights_of(source.checkpoint, source.config)
            load_strictly(distiller.student, file, who='student')
            distiller.student.eval()  # as the teacher; an untrained one has no statistics yet
        on_gpu(distiller)
        objective = distiller.objectives[name]
        found = self._divergence(distiller, objective, config)
        pairs = nearest_layers(found)
        sides = [list(map(str, taps)) for taps in (objective.student_taps, objective.teacher_taps)]
        for i, j in pairs:
            line = f'{sides[0][i]} <- {sides[1][j]}, divergence {float(found[i, j]):.4g}'
            current_screen().say(line)
        path = osp.join(work_dir, 'pairs.json')
        write_json(
            path,
            dict(pairs=pairs, divergence=found.tolist(), student=sides[0], teacher=sides[1]),
        )
        return Product('', path, work_dir)

    def _named(self, config: Any) -> str:
        """The InformationFlow among the objectives of a config."""
        objectives = config.model.get('objectives') or {}
        flows = [
            name
            for name, entry in objectives.items()
            if MODELS.get(str(entry.get('type'))) is InformationFlow
        ]
        if self.objective in flows:
            return str(self.objective)
        if len(flows) != 1 or self.objective is not None:
            raise ValueError(
                f'LayerPairs: {self.config} has {", ".join(flows) or "no InformationFlow"} among '
                f'its objectives, and objective={self.objective!r}. Name one of them.'
            )
        return flows[0]

    @torch.no_grad()
    def _divergence(self, distiller: Any, objective: InformationFlow, config: Any) -> Tensor:
        """(L_s, L_t): mean over batches."""
        (judge,) = distiller.plan.teacher_names(objective)
        total, count = torch.zeros(()), 0
        size = max(int(config.train_dataloader.get('batch_size') or 2), 2)
        for inputs, samples in training_batches(config, distiller, self.images, size):
            if len(inputs) < 2:
                break  # the last: one image has nothing to compare
            with buffers_kept(distiller.student), distiller.recorder.record(inputs) as own:
                run_to_taps(distiller.student, objective.student_taps, inputs, samples)
            other = distiller.teachers[judge](inputs, samples, distiller.pixels)
            rows = [
                side_rows(side, taps, False, False)
                for side, taps in ((own, objective.student_taps), (other, objective.teacher_taps))
            ]
            found = torch.tensor([[float(flow_divergence(s, t)) for t in rows[1]] for s in rows[0]])
            total, count = total + found * len(inputs), count + len(inputs)
        return total / max(count, 1)
