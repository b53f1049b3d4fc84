"""mmseg's own segmentors without a per-pixel classifier, made narrow."""

import functools

import torch
from mmengine.config import Config
from torch import nn

from mmkd.config import load_config
from mmkd.teacher import build_model
from mmkd.testing import shrink

STOCK = {
    'Segmenter': 'segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py',
    'KNet': 'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
    'PointRend': 'point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py',
    'MaskFormer': 'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',
    'Mask2Former': 'mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py',
    'SAN': 'san/san-vit-b16_coco-stuff164k-640x640.py',
}


class Words(nn.Module):
    """What SAN's text encoder says of the classes, which takes minutes to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('embeddings', torch.randn(172, 8))

    def forward(self) -> torch.Tensor:
        return self.embeddings


def small_san(config: dict) -> dict:
    encoder, head = config['image_encoder'], config['decode_head']
    encoder.update(img_size=(64, 64), embed_dims=16, num_heads=2, num_layers=4, out_origin=True)
    encoder['out_indices'] = (0, 1, 2)
    head['san_cfg'].update(clip_channels=16, embed_dims=12, num_queries=5)
    head['san_cfg']['cfg_encoder'].update(num_encode_layer=4, num_heads=2)
    head['san_cfg']['cfg_decoder'].update(num_heads=2, embed_channels=8, mlp_channels=8)
    head['maskgen_cfg'].update(sos_token_num=5, num_layers=1, embed_dims=16, num_heads=2)
    head['maskgen_cfg'].update(out_dims=8)
    head['deep_supervision_idxs'] = [3]
    head['train_cfg']['num_points'] = 16
    return config


@functools.cache
def network(name: str, seed: int = 0) -> nn.Module:
    config = load_config(f'mmseg::{STOCK[name]}').model.to_dict()
    config = shrink(config, 1) if name == 'SAN' else shrink(config, 8)
    if name == 'SAN':
        config = small_san(config)
    torch.manual_seed(seed)
    model = build_model(Config(dict(model=config, default_scope='mmseg')))
    if name == 'SAN':
        model.text_encoder = Words()
    return model
