# ADL as released: hard boxes of the teacher where there are no labels, and its class scores everywhere.
_base_ = ['retinanet_r18w8_pseudo_bccd.py']

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
