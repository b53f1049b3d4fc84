"""A teacher's embedding of every training image, without augmentation and in order."""

import pytest
import torch
from mmengine.config import Config

from mmkd.datasets import ClassFolders
from mmkd.datasets.embeddings import teacher_embeddings
from mmkd.datasets.synthetic import write_folders
from mmkd.registry import MODELS
from mmkd.testing import tiny_classifier

LOAD = [dict(type='LoadImageFromFile'), dict(type='mmkd.PackClassInputs')]
FLIP = [LOAD[0], dict(type='RandomFlip', prob=1.0), LOAD[1]]


def test_embeddings_of_the_training_set(tmp_path):
    write_folders(tmp_path, 5, 2, size=(32, 32))
    torch.manual_seed(0)
    model = MODELS.build(tiny_classifier(num_classes=5)).eval()
    torch.save(model.state_dict(), tmp_path / 'teacher.pth')
    data = dict(type='mmkd.ClassFolders', data_root=str(tmp_path))
    loaders = {
        f'{split}_dataloader': dict(
            dataset=dict(data, data_prefix=dict(img_path=split), pipeline=pipeline)
        )
        for split, pipeline in (('train', FLIP), ('val', LOAD))
    }
    config = Config(dict(model=tiny_classifier(num_classes=5), **loaders))
    found = teacher_embeddings(config, str(tmp_path / 'teacher.pth'), batch_size=2)
    images = ClassFolders(data_root=str(tmp_path), pipeline=LOAD)
    batch = model.data_preprocessor(dict(inputs=[images[i]['inputs'] for i in range(5)]))
    with torch.no_grad():
        wanted = model.pool(model.extract_feat(batch['inputs'])[-1])
    torch.testing.assert_close(found, wanted)
    assert found.shape == (5, 16)
    config.pop('val_dataloader')
    with pytest.raises(ValueError, match='needs a config with train_dataloader'):
        teacher_embeddings(config, str(tmp_path / 'teacher.pth'))
