"""A classifier's embedding of every training image, for samplers that cluster them."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from torch import Tensor
from torch.utils.data import DataLoader

from mmkd.config import calm_dataset, load_config
from mmkd.families import classifier
from mmkd.rows.vectors import vectors
from mmkd.tap import Recorder, parse_taps
from mmkd.teacher import Teacher


@torch.no_grad()
def teacher_embeddings(
    config: str | Config,
    checkpoint: str,
    batch_size: int = 256,
    device: str = 'cpu',
    tap: str | None = None,
) -> Tensor:
    """Embedding of each training image of a config, (len(dataset), D), without augmentation.

    Args:
        config (str | Config): of the teacher, with its data; images go through the pipeline of
            ``val_dataloader``.
        checkpoint (str): of the teacher.
        batch_size (int): images at a time.
        device (str): where the teacher runs.
        tap (str | None): of a vector, or of a map, which is averaged over places; None: the pooled
            features.

    Raises:
        ValueError: no classifier; a config without training or validation data.
    """
    config = load_config(config) if isinstance(config, str) else config
    init_default_scope(config.get('default_scope') or 'mmengine')
    model = Teacher(config, checkpoint).model.to(device)
    taps = parse_taps(tap or classifier.embedding_tap(model))
    entry = calm_dataset(config, test_mode=True)
    if entry is None:
        raise ValueError('teacher_embeddings needs a config with train_dataloader, val_dataloader.')
    dataset = DATASETS.build(entry)
    found = []
    for batch in DataLoader(dataset, batch_size, collate_fn=pseudo_collate):
        inputs = model.data_preprocessor(batch, False)['inputs']
        with Recorder(model, taps).record(inputs) as side:
            model(inputs, mode='tensor')
        found.append(vectors(side[taps[0]][0]).cpu())
    return torch.cat(found)
