# Mask2Former on CamVid from scratch, for two CPU cores; data and schedule are those of PSPNet's protocol.
_base_ = ['camvid_pspnet.py']

width = 32
embed_dims = 64
class_weight = [0.26, 0.18, 4.56, 0.14, 0.91, 0.38, 9.64, 1.84, 0.68, 6.25, 7.36]
attention = dict(embed_dims=embed_dims, num_heads=4, batch_first=True)
feed_forward = dict(embed_dims=embed_dims, feedforward_channels=4 * embed_dims)
positional_encoding = dict(num_feats=embed_dims // 2, normalize=True)

model = dict(
    backbone=dict(
        base_channels=width, stem_channels=width, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)
    ),
    decode_head=dict(
        _delete_=True,
        type='Mask2FormerHead',
        in_channels=[width, 2 * width, 4 * width, 8 * width],
        strides=[4, 8, 16, 32],
        feat_channels=embed_dims,
        out_channels=embed_dims,
        num_classes=11,
        num_queries=24,
        num_transformer_feat_level=3,
        pixel_decoder=dict(
            type='mmdet.MSDeformAttnPixelDecoder',
            num_outs=3,
            norm_cfg=dict(type='GN', num_groups=8),
            act_cfg=dict(type='ReLU'),
            encoder=dict(
                num_layers=1,
                layer_cfg=dict(
                    self_attn_cfg=dict(attention, num_levels=3, num_points=4),
                    ffn_cfg=feed_forward,
                ),
            ),
            positional_encoding=positional_encoding,
        ),
        positional_encoding=positional_encoding,
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=2,
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=feed_forward),
        ),
        loss_cls=dict(
            type='mmdet.CrossEntropyLoss', loss_weight=2.0, class_weight=[1.0] * 11 + [0.1]
        ),
        loss_mask=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0, loss_weight=5.0),
        train_cfg=dict(
            num_points=1024,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(
                type='mmdet.HungarianAssigner',
                match_costs=[
                    dict(type='mmdet.ClassificationCost', weight=2.0),
                    dict(type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
                    dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
                ],
            ),
            sampler=dict(type='mmdet.MaskPseudoSampler'),
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
