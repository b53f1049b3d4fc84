"""A small network, and checkpoints that fit it in part."""

from mmkd.checkpoint.fitting import load_weights, weights_for
from mmkd.testing import ToyNet


def net(width=4):
    return ToyNet(width, norm='BN')


def under(prefix, state=None):
    return {f'{prefix}{key}': value for key, value in (state or net().state_dict()).items()}


def fit(checkpoint, model=None):
    model = model or net()
    state, prefix = weights_for(model, checkpoint, 'file.pth')
    return load_weights(model, state, prefix)
