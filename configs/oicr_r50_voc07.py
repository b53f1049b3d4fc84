_base_ = ['_base_/voc07_mil.py']
