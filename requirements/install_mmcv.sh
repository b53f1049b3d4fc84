#!/usr/bin/env bash
# install_mmcv.sh PYTHON STATE [--check]: mmcv with compiled operators for the torch of PYTHON.
#
# pip finds a wheel only where somebody built one; otherwise the operators are compiled here.
# They fit exactly one torch: STATE/mmcv-torch remembers which. With --check the operators are
# called, and compiled anew if a wheel or a cached build turns out to be for another torch.
set -euo pipefail
python=$1 state=$2 mode=${3:-}
PATH=$(cd "$(dirname "$python")" && pwd):$PATH # where ninja lies
pin=$(grep '^onedl-mmcv==' "$(dirname "$0")/openmmlab.txt")
torch=$("$python" -c 'import torch; print(torch.__version__)' 2>/dev/null)

operators_work() {
  "$python" - <<'PYTHON'
import torch
from mmcv.ops import nms

boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
device = 'cuda' if torch.cuda.is_available() else 'cpu'
kept, _ = nms(boxes.to(device), torch.tensor([0.9, 0.8]).to(device), 0.5)
assert len(kept) == 1
PYTHON
}

install() { # further arguments of pip
  local start=$SECONDS
  echo "installing $pin; where pip has no wheel it is compiled, about 5 minutes on two cores"
  # No debug information: it doubles the time and the memory a compiler needs.
  if CFLAGS="-g0 ${CFLAGS:-}" "$python" -m pip --disable-pip-version-check install -v \
    --no-build-isolation --no-deps "$@" "$pin" 2>&1 | tee "$state/mmcv.log" |
    sed -u -n -E -e 's/^ *\[([0-9]+)\/([0-9]+)\].*/  compiled \1 of \2/p' \
      -e 's/^ *(Building wheel for .*|Successfully .*|Requirement already .*)/  \1/p'; then
    echo "  mmcv took $((SECONDS - start)) s"
    return
  fi
  tail -n 30 "$state/mmcv.log" >&2
  echo "mmcv could not be installed; the whole output is in $state/mmcv.log" >&2
  if ! command -v "${CXX:-c++}" >/dev/null; then
    echo 'There is no C++ compiler: install one (Debian, Ubuntu: apt install g++).' >&2
  elif ! "$python" -c 'import os, sysconfig
open(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null; then
    echo 'The headers of Python are missing (Debian, Ubuntu: apt install python3-dev).' >&2
  fi
  exit 1
}

rm -f "$state/cpu-only"
if [ 1 = "$("$python" -c 'import torch
from torch.utils.cpp_extension import CUDA_HOME
print(int(torch.cuda.is_available() and CUDA_HOME is None))' 2>/dev/null)" ]; then
  echo 'There is a GPU but no CUDA toolkit (nvcc), so mmcv is compiled for the CPU and the GPU is not used.'
  echo "To use it, install the toolkit torch $torch was built with, then: make distclean setup"
  export CUDA_VISIBLE_DEVICES=
  touch "$state/cpu-only"
fi

afresh=(--force-reinstall --no-cache-dir --no-binary onedl-mmcv)
if [ "$mode" = --check ]; then
  if ! operators_work 2>"$state/mmcv-check.log"; then
    tail -n 3 "$state/mmcv-check.log"
    echo "this build of mmcv does not work with torch $torch: compiling it anew"
    install "${afresh[@]}"
    operators_work
  fi
  echo "$torch" >"$state/mmcv-torch"
elif [ -e "$state/mmcv-torch" ] && [ "$torch" != "$(cat "$state/mmcv-torch")" ]; then
  install "${afresh[@]}"
else
  install
fi
