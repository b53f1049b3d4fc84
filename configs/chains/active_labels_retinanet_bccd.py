# Active learning from a black box: the boxes of 41 images, and twice of the 41 of which the student is least certain.
_pool = 'mmkd::small/retinanet_r18w8_bccd.py'
_ask = dict(type='mmkd.ActiveLabels', images=_pool, seeds=41, add=41, budget=123, threshold=0.4)
_student = 'mmkd::small/retinanet_r18w8_asked_bccd.py'
stages = dict(teacher=dict(config='mmkd::small/retinanet_r18w32_bccd.py'))
for _i in range(3):
    _last = dict(student=f'student{_i - 1}', files=dict(asked=f'ask{_i - 1}')) if _i else {}
    stages[f'ask{_i}'] = dict(make=dict(_ask), teacher='teacher', **_last)
    stages[f'student{_i}'] = dict(
        config=_student, files={'train_dataloader.dataset.ann_file': f'ask{_i}'}
    )
