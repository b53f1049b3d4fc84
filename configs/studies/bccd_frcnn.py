# BCCD, Faster R-CNN: ten methods and three combinations, with their defaults and with balance.
names = ('chen2017', 'fbkd', 'fgfi', 'gid', 'mimic', 'fgd', 'cwd', 'pkd', 'mgd', 'rkd')
methods = {name: f'mmkd::small/{name}_frcnn_r18w32_r18w8_bccd.py' for name in names}
methods |= {'fbkd+pkd': 'FBKD+PKD', 'fgfi+pkd': 'FGFI+PKD', 'chen2017+pkd': 'Chen2017+PKD'}
teacher = 'mmkd::small/frcnn_r18w32_bccd.py'
student = 'mmkd::small/frcnn_r18w8_bccd.py'
grid = {'model.balance': [None, 0.3]}
seeds = [0, 1]
