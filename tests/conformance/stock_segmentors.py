"""Segmentors of mmseg without a per-pixel classifier, and mmdet's of masks, made narrow."""

import functools

import torch
from mmengine.config import Config
from torch import nn

from mmkd.config import load_config
from mmkd.teacher import build_model
from mmkd.testing import shrink

STOCK = {
    'Segmenter': 'mmseg::segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py',
    'KNet': 'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
    'PointRend': 'mmseg::point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py',
    'MaskFormer': 'mmseg::maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py',
    'Mask2Former': 'mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py',
    'SAN': 'mmseg::san/san-vit-b16_coco-stuff164k-640x640.py',
    'PanopticMaskFormer': 'mmdet::maskformer/maskformer_r50_ms-16xb1-75e_coco.py',
    'PanopticMask2Former': 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
}
#: without a class for pixels between objects
INSTANCES = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
#: those whose heads classify masks
OF_MASKS = ('MaskFormer', 'Mask2Former', 'SAN', 'PanopticMaskFormer', 'PanopticMask2Former')


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


def short(head: dict, train_cfg: dict) -> None:
    """Few queries, layers and points of MaskFormer and Mask2Former."""
    head['num_queries'], head['transformer_decoder']['num_layers'] = 12, 3
    encoder = head['pixel_decoder'].get('encoder')
    if encoder is not None:
        encoder['num_layers'] = 1
    if 'num_points' in train_cfg:
        train_cfg['num_points'] = 64


@functools.cache
def network(name: str, seed: int = 0) -> nn.Module:
    """One of STOCK, or ``'Instances'``; tests share it."""
    path = STOCK.get(name, INSTANCES)
    config = load_config(path).model.to_dict()
    config = shrink(config, 1) if name == 'SAN' else shrink(config, 8)
    for head in (config.get('panoptic_head'), config.get('decode_head')):
        if head and 'num_queries' in head:
            short(head, head.get('train_cfg') or config['train_cfg'])
    if name == 'SAN':
        config = small_san(config)
    torch.manual_seed(seed)
    model = build_model(Config(dict(model=config, default_scope=path.partition('::')[0])))
    if name == 'SAN':
        model.text_encoder = Words()
    return model
