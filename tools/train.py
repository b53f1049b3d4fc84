"""Train a student: python tools/train.py CONFIG [--resume] [--teacher CONFIG CKPT --method FGFI]"""

import argparse
import os

import mmkd  # noqa: F401  (registers the scope)
from mmkd.config import default_work_dir, load_config
from mmkd.engine.launch import add_common, add_teacher, apply_common, train
from mmkd.engine.wrapping import wrap_stock
from mmkd.errors.ending import plain_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config of mmkd, or a stock one with --teacher')
    parser.add_argument('--work-dir', help='default: work_dirs/<config name>')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from the newest complete checkpoint of the work dir, or from the one named',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    add_teacher(parser)
    add_common(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    text = None
    if args.teacher:
        config, text = wrap_stock(args.config, *args.teacher, args.method)
    else:
        config = load_config(args.config)
    config = apply_common(args, config)
    if args.resume is not None:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    work_dir = args.work_dir or config.get('work_dir') or default_work_dir(config.filename)
    if text:
        name = f'distil_{args.method.rpartition(".")[2].lower()}'
        work_dir = args.work_dir or f'{work_dir}_{name}'  # not that of the plain training
        os.makedirs(work_dir, exist_ok=True)
        with open(os.path.join(work_dir, f'{name}.py'), 'w') as file:
            file.write(text)
    train(config, work_dir=work_dir, amp=args.amp)


if __name__ == '__main__':
    with plain_errors():
        main()
