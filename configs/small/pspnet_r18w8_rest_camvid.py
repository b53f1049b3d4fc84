# The 293 images that pspnet_r18w8_few_camvid.py leaves: for `mmkd make PseudoLabels images=…`.
_base_ = ['pspnet_r18w8_camvid.py']

train_dataloader = dict(dataset=dict(indices=[i for i in range(367) if i % 5]))
