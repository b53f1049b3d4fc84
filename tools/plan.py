"""Dry run without data: python tools/plan.py CONFIG

Prints where the student and the teacher can be tapped and with which shapes, then what the config
taps, pairs, adapts and trains.
"""

import argparse

from mmengine.registry import init_default_scope

import mmkd  # noqa: F401  (registers the scope)
from mmkd.config import load_config
from mmkd.engine.launch import add_common, apply_common, plain_errors
from mmkd.probe import candidates
from mmkd.registry import MODELS
from mmkd.teacher import build_model


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config of mmkd, or a plain one to see its taps')
    parser.add_argument('--depth', type=int, default=2, help='levels of module names to list')
    parser.add_argument(
        '--random-teacher', action='store_true', help='do not load the checkpoint, only plan'
    )
    add_common(parser)
    return parser.parse_args()


def show(title: str, model, depth: int) -> None:
    print(f'\ntaps of the {title}, {type(model).__name__}')
    for name, levels in candidates(model, depth):
        print(f'  {name:40s} {", ".join(map(str, levels))}')


def main() -> None:
    args = parse_args()
    config = apply_common(args, load_config(args.config))
    init_default_scope(config.get('default_scope', 'mmengine'))
    if 'Distiller' not in str(config.model.type):
        show('model', build_model(config.model).eval(), args.depth)
        return
    if args.random_teacher:
        teacher = config.model.teacher
        for entry in [teacher] if 'config' in teacher else teacher.values():
            entry.checkpoint = 'random'
    distiller = MODELS.build(config.model)
    show('student', distiller.student, args.depth)
    for name, teacher in distiller.teachers.items():
        show(name, teacher.model, args.depth)
    print(f'\n{distiller.plan}')


if __name__ == '__main__':
    with plain_errors():
        main()
