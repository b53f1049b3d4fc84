# Apprentice, scheme C: a distilled float student is quantised, tuned with its teacher, and recalibrated.
bits = dict(type='mmkd.FakeQuant', bits=4)
last = 'mmkd::small/kd_apprentice_c_cls_r14w16_r8w8_cifar10.py'
stages = dict(
    teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'),
    float=dict(config='mmkd::small/kd_cls_r14w16_r8w8_cifar10.py', teacher='teacher'),
    ready=dict(make=dict(type='mmkd.Recalibrate', edits=[bits]), student='float'),
    tuned=dict(config=last, teacher='teacher', student='ready'),
    deployed=dict(make=dict(type='mmkd.Recalibrate'), student='tuned'),
)
