_base_ = ['mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    teacher=dict(config='mmdet::rtmdet/rtmdet_m_8xb32-300e_coco.py', checkpoint='released'),
    objectives=dict(
        cwd=dict(
            type='mmkd.CWD',
            student=[f'neck.out_convs.{i}.conv' for i in range(3)],
            standardise=True,
            weight=dict(stop=280 / 300),  # when mosaic does
        ),
    ),
)
