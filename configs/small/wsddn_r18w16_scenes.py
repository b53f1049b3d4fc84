_base_ = ['../_base_/scenes_mil.py']
