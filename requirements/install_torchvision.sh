#!/usr/bin/env bash
# install_torchvision.sh PYTHON TORCH...: where torch sees a GPU, the torchvision made for it.
#
# Its kernels are mmcv's operators on a GPU where mmcv has none (mmkd/operators/). TORCH is what pip
# was asked for: options in it, such as an index, hold for torchvision too.
set -euo pipefail
python=$1
shift

found=$("$python" -W ignore -c 'import torch; print(torch.__version__, torch.cuda.is_available())')
read -r version sees_gpu <<<"$found"
[ "$sees_gpu" = True ] || exit 0
echo "  the GPU's operators come from torchvision, made for torch $version"
if ! "$python" -m pip --disable-pip-version-check install "$@" "torch==${version%%+*}" torchvision |
  sed -u '/^Requirement already satisfied/d' || ! "$python" -W ignore -c 'import torch, torchvision
boxes = torch.ones(1, 4, device="cuda")
torchvision.ops.nms(boxes, boxes[:, 0], 0.5)'; then
  echo "No torchvision works with torch $version here. Take a torch that has one, with TORCH=torch==…," >&2
  echo 'or compile the operators of mmcv: make setup OPERATORS=compiled' >&2
  exit 1
fi
