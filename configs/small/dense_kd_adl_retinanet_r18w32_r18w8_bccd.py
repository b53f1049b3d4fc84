# ADL as released: batches of labelled images, and of those and others with the teacher's boxes, in turn.
_base_ = ['retinanet_r18w8_pseudo_bccd.py']

sampler = dict(type='mmkd.AlternatingSampler', batch_size=4)
train_dataloader = dict(sampler=dict(_delete_=True, **sampler))
model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmkd::small/retinanet_r18w32_few_bccd.py', checkpoint='last'),
    objectives=dict(
        adl=dict(
            type='mmkd.DenseKD', classes='adl', boxes=None, normaliser='power', mask_ignore=True
        )
    ),
)
