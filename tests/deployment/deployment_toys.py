"""Checkpoints of edited networks as training writes them."""

import torch
from mmengine.config import Config

from mmkd.adapters.fake_quant import bake, latent_modules
from mmkd.teacher import build_model

EDIT = dict(type='mmkd.FakeQuant', bits=4)


def saved(path, model, *edits, scope='mmengine', calibrate=None, record=True):
    """Config of an edited network with random weights; its checkpoint is written."""
    torch.manual_seed(0)
    config = Config(
        dict(model=dict(type='mmkd.Edited', model=model, edits=list(edits)), default_scope=scope)
    )
    built = build_model(config)
    for _, module in latent_modules(built):
        module.begin()
    if calibrate is not None:
        for _ in range(10):
            built.train()(calibrate)
    state = built.state_dict()
    state.update(bake(built, state))
    entries = [['student', edit] for edit in edits]
    held = dict(edits=dict(edits=entries, latent={})) if record else {}
    torch.save(dict(held, state_dict=state, meta={}), path)
    return config, built.eval()
