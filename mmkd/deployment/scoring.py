"""Scores of exported files: by the student's own test, with a file in the place of its layers."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config

from mmkd.borrowed import unwrapped
from mmkd.deployment.networks import Deployed
from mmkd.deployment.standing_in import Run, standing_in
from mmkd.engine.console.lines import main_metric, scalars, validation
from mmkd.engine.launch import check_test_set, tester


class Scorer:
    """The test of a config's student.

    Args:
        config (Config): of the run, or of the student alone.
        checkpoint (str): the student's weights.
        work_dir (str): for the logs of the tests.

    Raises:
        ValueError: the config has no test set; weights that do not fit.
        FileNotFoundError: no data.
    """

    def __init__(self, config: Config, checkpoint: str, work_dir: str) -> None:
        check_test_set(config, '--score tests the files')
        self.runner = tester(copy.deepcopy(config), checkpoint, work_dir)
        self.model: Any = unwrapped(self.runner.model)

    def size(self) -> tuple[int, int]:
        """Height and width of the first test image, as the network gets it."""
        batch = next(iter(self.runner.test_dataloader))
        inputs = self.model.data_preprocessor(batch, False)['inputs']
        return tuple(inputs.shape[2:])

    def own(self) -> str:
        """What the student scores."""
        return self._told()

    def of(self, network: Deployed, run: Run, size: tuple[int, int]) -> str:
        """What a file scores; see :func:`~mmkd.deployment.standing_in.standing_in`."""
        self.model.load_state_dict(network.model.state_dict(), strict=False)  # what is not in it
        with standing_in(self.model, network, run, size):
            return self._told()

    def _told(self) -> str:
        found = scalars(self.runner.test())
        return validation(found, main_metric((), found), {}, False)
