# The teacher of the CamVid protocol with masks: Mask2Former, ResNet-18 of width 32, two decoder layers.
_base_ = ['../_base_/camvid_mask2former.py']
