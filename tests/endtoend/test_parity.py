"""With every weight 0, a distilled run is the stock run, bit for bit."""

import pytest
import torch
from mmengine.runner import Runner as StockRunner
from recipes import distilled, recipe, run

from mmkd.engine.launch import build_runner, prepare


@pytest.mark.parametrize('kind', ['frcnn', 'pspnet'])
def test_twenty_steps_with_weight_zero_equal_stock_training(kind, tmp_path):  # GEN-7
    stock = recipe(kind, tmp_path / 'data', tmp_path / 'stock', iterations=20)
    expected, weights = run(StockRunner.from_cfg(stock))
    config = recipe(
        kind, tmp_path / 'data', tmp_path / 'kd', distilled(kind, weight=0), iterations=20
    )
    runner = build_runner(prepare(config))
    losses, ours = run(runner)
    assert len(losses) == 20
    assert losses == expected
    assert weights.keys() == ours.keys()
    assert all(torch.equal(weights[k], ours[k]) for k in weights)
    # The comparison means something: training moved the loss, and a weight does change it.
    assert losses[0] != losses[-1]
    config = recipe(kind, tmp_path / 'data', tmp_path / 'on', distilled(kind), iterations=3)
    different, _ = run(build_runner(prepare(config)))
    assert different[0] != expected[0] and different[2] != expected[2]
