"""mmcv's compiled operators without a compiler: non-maximum suppression, RoIAlign and others.

`install` lets mmcv find them (`extension`). One file is one family of operators, for tensors of any
strides, in plain torch; on a GPU, torchvision's kernels do the work (`vision`). `strides` lets
compiled operators accept tensors of any layout.
"""

from mmkd.operators.extension import describe, install
from mmkd.operators.missing import OperatorMissing
from mmkd.operators.strides import contiguous

__all__ = ['OperatorMissing', 'contiguous', 'describe', 'install']
