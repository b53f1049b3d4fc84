# The demo: FGFI, and PKD with a balanced weight, on synthetic scenes. Data: mmkd demo.
teacher = 'mmkd::demo_teacher.py'
methods = {'FGFI': 'mmkd::demo_fgfi.py', 'PKD balanced': 'mmkd::demo_pkd.py'}
seeds = [0]
work_dir = 'work_dirs/demo'
