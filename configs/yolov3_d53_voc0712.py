_base_ = ['_base_/yolov3_voc0712.py']
