# The student of OD-200FPS on BCCD: a TinyDarknet of a quarter of its widths.
_base_ = ['../_base_/bccd_yolov3.py']

model = dict(
    backbone=dict(type='mmkd.TinyDarknet', widths=(4, 8, 16, 32, 64, 128)),
    neck=dict(in_channels=[128, 64], out_channels=[64, 32]),
    bbox_head=dict(in_channels=[64, 32], out_channels=[128, 64]),
)
