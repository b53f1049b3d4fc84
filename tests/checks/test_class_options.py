"""The --cfg-options that a wrong number of classes is answered with: applied, they mend it."""

import argparse
import re

import pytest
from mmengine.config import Config, DictAction

from mmkd.checks.class_options import options_for
from mmkd.checks.labels import check_heads
from mmkd.families.class_heads import Labels, WrongHead
from mmkd.teacher import build_model
from mmkd.testing import (
    tiny_classifier,
    tiny_detr,
    tiny_faster_rcnn,
    tiny_fcos,
    tiny_pspnet,
    tiny_yolov3,
)

FIVE = Labels(tuple('abcde'))


def cascade(listed):
    model = tiny_faster_rcnn()
    roi, own = model['roi_head'], model['train_cfg']['rcnn']
    head = roi['bbox_head']
    heads = [head, dict(head)] if listed else head
    roi.update(type='CascadeRoIHead', num_stages=2, stage_loss_weights=[1, 1], bbox_head=heads)
    model['train_cfg']['rcnn'] = [own, own]
    return model


def two_losses():
    model = tiny_pspnet(auxiliary=True)
    own = dict(type='CrossEntropyLoss', loss_weight=1.0)
    model['decode_head']['loss_decode'] = [
        dict(own, class_weight=[1.0] * 3),
        dict(own, loss_name='loss_two', class_weight=[0.5, 1.0, 2.0]),
    ]
    return model


def single_channel():
    return tiny_pspnet(num_classes=2, decode_head=dict(out_channels=1, threshold=0.5))


MAKE = {
    'cascade': lambda: cascade(True),
    'cascade from one mapping': lambda: cascade(False),
    'DETR': tiny_detr,
    'class weights': two_losses,
    'FCOS': tiny_fcos,
    'YOLO': tiny_yolov3,
    'auxiliary head': lambda: tiny_pspnet(auxiliary=True),
    'one channel': single_channel,
    'classifier': tiny_classifier,
}


def parsed(options):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


@pytest.mark.parametrize('distilled', [True, False], ids=['distilled', 'plain'])
@pytest.mark.parametrize('kind', MAKE)
def test_applied_they_mend_it(kind, distilled):
    model = MAKE[kind]()
    whole = dict(type='mmkd.Distiller', student=model) if distilled else model
    config = Config(dict(model=whole))
    with pytest.raises(ValueError, match='has 5 classes .a, b, c, …') as error:
        check_heads(build_model(model), FIVE, config)
    told = re.search(r'--cfg-options (.*?), or give', str(error.value))[1].split()
    assert told and all(x.startswith('model.student.' if distilled else 'model.') for x in told)
    config.merge_from_dict(parsed(told))
    check_heads(build_model(config), FIVE, config)


def test_one_for_each_stage_or_one_for_all():
    wrong = [WrongHead(f'roi_head.bbox_head.{i}', 3, dict(num_classes=5)) for i in range(2)]
    one, each = (options_for(wrong, dict(model=cascade(listed))) for listed in (False, True))
    assert one == ['model.roi_head.bbox_head.num_classes=5']
    assert each == [f'model.roi_head.bbox_head.{i}.num_classes=5' for i in range(2)]


def test_class_weights_follow_where_they_are_alike_and_are_dropped_elsewhere():
    model = two_losses()
    told = options_for([WrongHead('decode_head', 3, dict(num_classes=5))], dict(model=model))
    assert told == [
        'model.decode_head.num_classes=5',
        'model.decode_head.loss_decode.0.class_weight=[1.0,1.0,1.0,1.0,1.0]',
        'model.decode_head.loss_decode.1.class_weight=None',
    ]
    background = dict(bbox_head=dict(loss_cls=dict(class_weight=[1.0] * 3 + [0.1])))
    told = options_for([WrongHead('bbox_head', 3, dict(num_classes=2))], dict(model=background))
    assert told[1] == 'model.bbox_head.loss_cls.class_weight=[1.0,1.0,0.1]'


def test_instances_are_things():
    model = dict(panoptic_head=dict(num_things_classes=80, num_stuff_classes=53))
    told = options_for([WrongHead('panoptic_head', 133, dict(num_classes=5))], dict(model=model))
    assert told == [
        'model.panoptic_head.num_things_classes=5',
        'model.panoptic_head.num_stuff_classes=0',
    ]


def test_heads_told_by_a_module_inside_and_assigners():
    model = dict(
        bbox_head=dict(head_module=dict(num_classes=80)),
        train_cfg=dict(assigner=dict(num_classes=80)),
    )
    wrong = [WrongHead(p, 80, dict(num_classes=5)) for p in ('bbox_head', 'bbox_head.head_module')]
    assert options_for(wrong, dict(model=model)) == [
        'model.bbox_head.head_module.num_classes=5',
        'model.train_cfg.assigner.num_classes=5',
    ]
    assert options_for(wrong[:1]) == ['model.bbox_head.num_classes=5']
