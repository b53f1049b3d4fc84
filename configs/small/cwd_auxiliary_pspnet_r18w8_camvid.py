# The decode head teaches the auxiliary one, with 0.4 of CWD's usual weight as its own loss has.
_base_ = ['pspnet_auxiliary_r18w8_camvid.py']

model = dict(
    _delete_=True,
    type='mmkd.Distiller',
    student=_base_.model,
    objectives=dict(
        cwd=dict(
            type='mmkd.CWD',
            student='auxiliary_head.conv_seg',
            teacher='decode_head.conv_seg',
            teacher_name='student',
            weight=1.2,
        ),
    ),
)
