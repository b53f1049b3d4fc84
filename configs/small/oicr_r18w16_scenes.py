_base_ = ['../_base_/scenes_mil.py']

model = dict(roi_head=dict(refinements=3))
