# BCCD, Faster R-CNN: ten methods and two combinations, with their defaults and with balance.
methods = [
    f'mmkd::small/{name}_frcnn_r18w32_r18w8_bccd.py'
    for name in ('chen2017', 'fbkd', 'fgfi', 'gid', 'mimic', 'fgd', 'cwd', 'pkd', 'mgd', 'rkd')
]
methods += ['FBKD+PKD', 'FGFI+PKD']
teacher = 'mmkd::small/frcnn_r18w32_bccd.py'
student = 'mmkd::small/frcnn_r18w8_bccd.py'
grid = {'model.balance': [None, 0.3]}
seeds = [0, 1]
