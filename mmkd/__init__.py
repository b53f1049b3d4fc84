"""mmkd: knowledge distillation for detectors and segmentors on OpenMMLab.

Importing it makes ``type='mmkd.…'`` and ``_base_ = ['mmkd::…']`` work in every mmengine config, and
lets mmengine load checkpoints without running code in them (docs/security.md).
"""

from mmkd.commands import answer
from mmkd.environment import check_environment
from mmkd.version import __version__

answer()  # `mmkd train --help` needs nothing of what follows, which takes seconds to import
check_environment()  # before anything that a wrong version would break with a worse message

from mmkd import operators  # noqa: E402

operators.install()  # before mmdet and mmseg, which import mmcv's operators

from mmkd.checkpoint import guard_file_handlers, guard_stock_loaders  # noqa: E402
from mmkd.config import find_files_first, format_once, install_scopes, lend_student_config  # noqa: E402

install_scopes()
find_files_first()
lend_student_config()
format_once()
guard_stock_loaders()
guard_file_handlers()

from mmkd.distiller import Distiller  # noqa: E402
from mmkd.objective import Objective, PairObjective  # noqa: E402
from mmkd.registry import MODELS  # noqa: E402
from mmkd.rows.instance_objective import InstanceObjective  # noqa: E402
from mmkd.schedule import Progress, Schedule  # noqa: E402
from mmkd.tap import Tap, TapError, Trace  # noqa: E402
from mmkd.teacher import Teacher  # noqa: E402
from mmkd.view import Boxes, View  # noqa: E402

__all__ = [
    'MODELS',
    'Boxes',
    'Distiller',
    'InstanceObjective',
    'Objective',
    'PairObjective',
    'Progress',
    'Schedule',
    'Tap',
    'TapError',
    'Teacher',
    'Trace',
    'View',
    '__version__',
]
