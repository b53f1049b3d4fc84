"""Trained networks for makers, and what a maker makes of one."""

import torch

from mmkd.chain import Product, build_maker
from mmkd.teacher import build_model, load_strictly


def saved(config, folder, name):
    """A network of random weights as files, ``<name>.py`` and ``<name>.pth``, and itself."""
    torch.manual_seed(0)
    model = build_model(config).eval()
    config.dump(folder / f'{name}.py')
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / f'{name}.pth')
    return Product(str(folder / f'{name}.py'), str(folder / f'{name}.pth'), ''), model


def made(kind, source, work_dir, **options):
    """What a maker writes for a network, as files and as the network that they build."""
    maker = build_maker(dict(type=f'mmkd.{kind}', **options))
    product = maker(dict(teacher=source), str(work_dir))
    model = build_model(product.config).eval()
    load_strictly(model, product.checkpoint)
    return product, model
