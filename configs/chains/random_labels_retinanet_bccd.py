# The comparison of active_labels_retinanet_bccd.py: the same number of queries, of images at random.
_base_ = ['active_labels_retinanet_bccd.py']
stages = {f'ask{_i}': dict(make=dict(choose='random')) for _i in (1, 2)}
