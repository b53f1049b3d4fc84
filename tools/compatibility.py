"""Which method works on which pair of stock models: python tools/compatibility.py [--jobs N]

Plans every method on every pair of PAIRS (as plan.py --method all does), follows the advice of
refusals, and trains two steps with each method that fits, on random pixels with random weights. One
process a pair; finished pairs are kept in --work-dir, and the same command goes on after a kill.
The table is written to docs/compatibility.md.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from mmengine.registry import DefaultScope

import mmkd
from mmkd.checkpoint import atomic_file
from mmkd.config import load_config
from mmkd.engine.batches import random_batch
from mmkd.engine.compatibility import page
from mmkd.engine.fits import Pair
from mmkd.engine.launch import plain_errors
from mmkd.engine.trial import try_steps
from mmkd.methods import names
from mmkd.teacher import Teacher, build_model

ROOT = Path(__file__).resolve().parent.parent
#: student, teacher
DETECTORS = [
    ('retinanet/retinanet_r18_fpn_1x_coco', 'retinanet/retinanet_r50_fpn_1x_coco'),
    ('retinanet/retinanet_r50_fpn_1x_coco', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco'),
    ('pvt/retinanet_pvt-t_fpn_1x_coco', 'swin/retinanet_swin-t-p4-w7_fpn_1x_coco'),
    ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', 'fcos/fcos_r101-caffe_fpn_gn-head_1x_coco'),
    ('atss/atss_r50_fpn_1x_coco', 'atss/atss_r101_fpn_1x_coco'),
    ('ld/ld_r18-gflv1-r101_fpn_1x_coco', 'gfl/gfl_r50_fpn_1x_coco'),
    ('gfl/gfl_r50_fpn_1x_coco', 'gfl/gfl_r101_fpn_ms-2x_coco'),
    ('vfnet/vfnet_r50_fpn_1x_coco', 'tood/tood_r50_fpn_1x_coco'),
    ('paa/paa_r50_fpn_1x_coco', 'free_anchor/freeanchor_r50_fpn_1x_coco'),
    ('reppoints/reppoints-moment_r50_fpn_1x_coco', 'foveabox/fovea_r50_fpn_4xb4-1x_coco'),
    ('yolo/yolov3_mobilenetv2_8xb24-320-300e_coco', 'yolo/yolov3_d53_8xb8-320-273e_coco'),
    ('yolox/yolox_tiny_8xb8-300e_coco', 'yolox/yolox_s_8xb8-300e_coco'),
    ('rtmdet/rtmdet_tiny_8xb32-300e_coco', 'rtmdet/rtmdet_s_8xb32-300e_coco'),
    ('ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco', 'ssd/ssd300_coco'),
    ('ssd/ssd300_coco', 'ssd/ssd300_coco'),
    ('ssd/ssd512_coco', 'ssd/ssd512_coco'),
    ('yolof/yolof_r50-c5_8xb8-1x_coco', 'yolof/yolof_r50-c5_8xb8-1x_coco'),
    ('efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco', 'retinanet/retinanet_r50_fpn_1x_coco'),
    ('centernet/centernet_r18_8xb16-crop512-140e_coco', 'centernet/centernet_r18_8xb16-crop512-140e_coco'),
    ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'faster_rcnn/faster-rcnn_r101_fpn_1x_coco'),
    ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco'),
    ('faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco', 'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco'),
    ('faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco'),
    ('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco', 'cascade_rcnn/cascade-rcnn_r101_fpn_1x_coco'),
    ('libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco', 'double_heads/dh-faster-rcnn_r50_fpn_1x_coco'),
    ('grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco'),
    ('tridentnet/tridentnet_r50-caffe_1x_coco', 'tridentnet/tridentnet_r50-caffe_1x_coco'),
    ('faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco', 'tridentnet/tridentnet_r50-caffe_1x_coco'),
    ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco', 'mask_rcnn/mask-rcnn_r101_fpn_1x_coco'),
    ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco', 'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco'),
    ('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco', 'htc/htc-without-semantic_r50_fpn_1x_coco'),
    ('yolact/yolact_r50_1xb8-55e_coco', 'yolact/yolact_r50_1xb8-55e_coco'),
    ('solov2/solov2-light_r18_fpn_ms-3x_coco', 'solov2/solov2_r50_fpn_1x_coco'),
    ('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco', 'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco'),
    ('detr/detr_r18_8xb2-500e_coco', 'detr/detr_r50_8xb2-150e_coco'),
    ('deformable_detr/deformable-detr_r50_16xb2-50e_coco', 'dino/dino-4scale_r50_8xb2-12e_coco'),
    ('conditional_detr/conditional-detr_r50_8xb2-50e_coco', 'dab_detr/dab-detr_r50_8xb2-50e_coco'),
    ('mask2former/mask2former_r50_8xb2-lsj-50e_coco', 'mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco'),
]
SEGMENTORS = [
    ('pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024', 'pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    ('fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024', 'deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024'),
    ('deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024', 'deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024'),
    ('mobilenet_v2/mobilenet-v2-d8_fcn_4xb2-80k_cityscapes-512x1024', 'danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    ('mobilenet_v3/mobilenet-v3-d8-scratch-s_lraspp_4xb4-320k_cityscapes-512x1024', 'pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    ('fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024', 'pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024'),
    ('unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024', 'unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024'),
    ('upernet/upernet_r18_4xb4-160k_ade20k-512x512', 'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512'),
    ('segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512', 'segformer/segformer_mit-b2_8xb2-160k_ade20k-512x512'),
    ('segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512', 'segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512'),
    ('segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512', 'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512'),
    ('hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024', 'ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024'),
    ('bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024', 'bisenetv1/bisenetv1_r50-d32_4xb4-160k_cityscapes-1024x1024'),
    ('bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024', 'bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024'),
    ('ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024', 'ddrnet/ddrnet_23_in1k-pre_2xb6-120k_cityscapes-1024x1024'),
    ('pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes', 'pidnet/pidnet-l_2xb6-120k_1024x1024-cityscapes'),
    ('stdc/stdc1_4xb12-80k_cityscapes-512x1024', 'stdc/stdc2_4xb12-80k_cityscapes-512x1024'),
    ('icnet/icnet_r18-d8_4xb2-80k_cityscapes-832x832', 'icnet/icnet_r50-d8_4xb2-80k_cityscapes-832x832'),
    ('segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512', 'segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512'),
    ('maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512', 'maskformer/maskformer_swin-t_upernet_8xb2-160k_ade20k-512x512'),
    ('mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024', 'mask2former/mask2former_swin-t_8xb2-90k_cityscapes-512x1024'),
    ('knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512', 'knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512'),
    ('point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024', 'point_rend/pointrend_r101_4xb2-80k_cityscapes-512x1024'),
    ('sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024', 'sem_fpn/fpn_r101_4xb2-80k_cityscapes-512x1024'),
    ('san/san-vit-b16_coco-stuff164k-640x640', 'san/san-vit-b16_coco-stuff164k-640x640'),
]
PAIRS = [(f'mmdet::{a}.py', f'mmdet::{b}.py') for a, b in DETECTORS] + [
    (f'mmseg::{a}.py', f'mmseg::{b}.py') for a, b in SEGMENTORS
]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', nargs='+', type=int, metavar='N', help='these pairs, from 1')
    parser.add_argument('--methods', nargs='+', help='default: all')
    parser.add_argument('--jobs', type=int, default=1, help='pairs at a time')
    parser.add_argument('--steps', type=int, default=2, help='trained with each method that fits')
    parser.add_argument('--work-dir', default='work_dirs/compatibility')
    parser.add_argument('--out', default=str(ROOT / 'docs' / 'compatibility.md'))
    parser.add_argument('--list', action='store_true', help='print the pairs and stop')
    parser.add_argument('--here', action='store_true', help=argparse.SUPPRESS)  # in this process
    return parser.parse_args()


def untrained(path: str) -> torch.nn.Module:
    """A stock model without its downloads."""
    config = load_config(path)

    def forget(entry) -> None:
        if isinstance(entry, dict):
            for key, value in entry.items():
                loaded = isinstance(value, dict) and value.get('type') == 'Pretrained'
                if key == 'pretrained' or (key == 'init_cfg' and loaded):
                    entry[key] = None
                elif key == 'teacher_ckpt':
                    entry[key] = None
                else:
                    forget(value)
        elif isinstance(entry, (list, tuple)):
            for item in entry:
                forget(item)

    model = config.model.to_dict()
    forget(model)
    return build_model(dict(model=plain_student(model), default_scope=config.get('default_scope')))


def plain_student(model: dict) -> dict:
    """mmdet's own LD as the GFL that it trains."""
    if model.get('type') != 'KnowledgeDistillationSingleStageDetector':
        return model
    head = {k: v for k, v in model['bbox_head'].items() if k != 'loss_ld'} | dict(type='GFLHead')
    rest = {k: v for k, v in model.items() if not k.startswith('teacher')}
    return rest | dict(type='GFL', bbox_head=head)


def try_pair(number: int, methods: list[str], steps: int) -> dict:
    """Plan and train one pair."""
    student, teacher = PAIRS[number - 1]
    start = time.time()
    torch.manual_seed(0)
    scope = student.partition('::')[0]
    with DefaultScope.overwrite_default_scope(scope):
        networks = [untrained(path) for path in (student, teacher)]
        for network in networks:
            network.init_weights()
        pair = Pair(networks[0], Teacher(networks[1], 'random'))
        fits = list(pair.fits(methods))
        planned, size = time.time() - start, max(one.size for one in pair.found)
        batch = random_batch(pair.student, (size, size), 2, 6)
        stopped = try_steps(pair, fits, batch, steps) if steps else {}
    rows = [dict(vars(fit), step=stopped.get(fit.method)) for fit in fits]
    seconds = dict(planned=round(planned, 1), all=round(time.time() - start, 1))
    return dict(student=student, teacher=teacher, size=size, seconds=seconds, steps=steps, fits=rows)


def run(number: int, args: argparse.Namespace) -> None:
    """One pair in a process of its own, unless it is there."""
    path = Path(args.work_dir) / f'{number:03d}.json'
    if path.is_file():
        return
    if not args.here:
        command = [sys.executable, __file__, '--here', '--only', str(number)]
        command += ['--steps', str(args.steps), '--work-dir', args.work_dir]
        done = subprocess.run(
            command + (['--methods', *args.methods] if args.methods else []),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if not path.is_file():
            path.with_suffix('.log').write_text(done.stdout)
        print(f'{number:3d}  {"done" if path.is_file() else "FAILED"}  {PAIRS[number - 1][0]}', flush=True)
        return
    result = try_pair(number, args.methods or names(), args.steps)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(str(path)) as part:
        Path(part).write_text(json.dumps(result, indent=1))


def main() -> None:
    args = parse_args()
    numbers = args.only or range(1, len(PAIRS) + 1)
    if args.list:
        print('\n'.join(f'{n:3d}  {PAIRS[n - 1][0]}  {PAIRS[n - 1][1]}' for n in numbers))
        return
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda number: run(number, args), numbers))
    if not args.here:
        found = [json.loads(p.read_text()) for p in sorted(Path(args.work_dir).glob('*.json'))]
        text, faults = page(found)
        Path(args.out).write_text(text)
        print('\n'.join(faults) or 'plan and step agree, and all advice works')


if __name__ == '__main__':
    with plain_errors():
        main()
