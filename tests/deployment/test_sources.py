"""The network in a checkpoint, and how its weights were rounded."""

import pytest
import torch
from deployment_toys import EDIT, saved
from mmengine.config import Config

from mmkd.adapters.fake_quant import latent_modules
from mmkd.deployment.sources import deployed_model, rounded_model, whole_weights
from mmkd.testing import tiny_classifier

X = torch.rand(2, 3, 16, 16)


@pytest.mark.parametrize(
    'edit', [EDIT, dict(EDIT, form='lsq'), dict(EDIT, acts=8)], ids=['fixed', 'lsq', 'acts']
)
def test_saved_weights_are_not_rounded_again(tmp_path, edit):
    file = str(tmp_path / 'x.pth')
    config, trained = saved(file, tiny_classifier(4), edit, calibrate=X)
    model = deployed_model(config, file).eval()
    assert not [*latent_modules(model)]
    assert torch.equal(model(X), trained(X))
    found = whole_weights(config, file, model)
    assert {whole.bits for whole in found.values()} == {4, 8} and len(found) == 10


@pytest.mark.parametrize('record', [True, False])
def test_edits_of_the_checkpoint_or_of_the_config(tmp_path, record):
    """``student.py`` does not know them, the best checkpoint neither."""
    file = str(tmp_path / 'x.pth')
    config, _ = saved(file, tiny_classifier(4), EDIT, record=record)
    plain = Config(dict(model=tiny_classifier(4)))
    distilled = Config(
        dict(
            model=dict(
                type='mmkd.Distiller', student=tiny_classifier(4), objectives={}, edits=[EDIT]
            )
        )
    )
    for one, known in ((config, True), (distilled, True), (plain, record)):
        model = deployed_model(one, file)
        assert bool(whole_weights(one, file, model)) == known


def test_a_rounded_copy_leaves_the_model_alone(tmp_path):
    file = str(tmp_path / 'x.pth')
    config, _ = saved(file, tiny_classifier(4))
    model = deployed_model(config, file).eval()
    before = model(X)
    rounded, found = rounded_model(model, 4)
    assert torch.equal(model(X), before) and not [*latent_modules(model)]
    assert not torch.allclose(rounded.eval()(X), before) and not [*latent_modules(rounded)]
    for name, whole in found.items():
        weight = rounded.get_submodule(name).weight.flatten(1)
        torch.testing.assert_close(whole.numbers.flatten(1) * whole.step[:, None], weight.double())
