"""GuidanceRoutes: the best route of a GuidanceRoute, by short probes."""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from typing import Any

from mmkd.analysis.routes import search_routes
from mmkd.chain import Maker, Product
from mmkd.chain.product import write_json
from mmkd.config import load_config
from mmkd.engine.console.screen import current_screen
from mmkd.engine.launch import apply_options
from mmkd.makers.networks import check_alone
from mmkd.registry import MAKERS


@MAKERS.register_module()
class GuidanceRoutes(Maker):
    """The search of ``mmkd search_routes``; ``routes.json`` is for ``routes=`` of a GuidanceRoute.

    Args:
        config (str): of a run with a GuidanceRoute; a stage's ``teacher=`` replaces its teacher.
        epochs, hold_out, seed, rank, objective: see :func:`~mmkd.analysis.routes.search_routes`.
        options (dict): of that config, as ``--cfg-options``.

    Raises:
        ValueError: several processes; see also ``search_routes``.
    """

    def __init__(
        self,
        config: str,
        epochs: int = 1,
        hold_out: float = 0.1,
        seed: int | None = None,
        rank: str = 'joint',
        objective: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.options = config, dict(options or {})
        self.settings = (epochs, hold_out, seed, rank, objective)

    def __call__(self, given: Mapping[str, Product], work_dir: str) -> Product:
        check_alone('GuidanceRoutes')
        config = load_config(self.config)
        apply_options(config, self.options)
        if 'teacher' in given:
            source = given['teacher']
            config.model.teacher.update(config=source.config, checkpoint=source.checkpoint)
        say = current_screen().say
        found = search_routes(config, work_dir, *self.settings, progress=say)
        path = osp.join(work_dir, 'routes.json')
        write_json(path, found.as_dict())
        return Product('', path, work_dir)
