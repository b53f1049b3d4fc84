# Active mixup (Wang et al., CVPR 2020): a black box, 500 images, and 4,500 of their mixtures in three rounds.
_pool = 'mmkd::small/cls_r8w8_cifar10.py'
_ask = dict(type='mmkd.ActiveMixup', config=_pool, seeds=500, add=1500, budget=5000, pairs=20_000)
_student = 'mmkd::small/cls_r8w8_answers_cifar10.py'
stages = dict(teacher=dict(config='mmkd::small/cls_r14w16_cifar10.py'))
for _i in range(4):
    _last = dict(student=f'student{_i - 1}', files=dict(asked=f'ask{_i - 1}')) if _i else {}
    stages[f'ask{_i}'] = dict(make=dict(_ask), teacher='teacher', **_last)
    stages[f'student{_i}'] = dict(
        config=_student, files={'train_dataloader.dataset.answers': f'ask{_i}'}
    )
