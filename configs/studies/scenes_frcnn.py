# The demo's pair: which of all methods that fit is worth a whole training? Data: mmkd demo.
teacher = 'mmkd::demo_teacher.py'
student = 'mmkd::_base_/synthetic_frcnn.py'
methods = 'all'
search = dict(epochs=1, keep=2)
seeds = [0]
