# The 240 scenes that maskrcnn_r18w8_few_scenes.py leaves: for `mmkd make PseudoLabels images=…`.
_base_ = ['maskrcnn_r18w8_scenes.py']

train_dataloader = dict(dataset=dict(indices=[*range(60, 300)]))
