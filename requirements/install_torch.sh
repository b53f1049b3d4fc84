#!/usr/bin/env bash
# install_torch.sh PYTHON TORCH...: torch, as pip is asked for it; says so where it misses a GPU.
set -euo pipefail
python=$1
shift

"$python" -m pip --disable-pip-version-check install "$@" | sed -u '/^Requirement already satisfied/d'

# numpy may not be there yet, and torch warns of it
built=$("$python" -W ignore -c 'import torch
print(torch.__version__, torch.cuda.is_available(), torch.version.cuda or torch.version.hip or "no")')
read -r version sees_gpu cuda <<<"$built"
if [ "$sees_gpu" = False ] && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
  [ "$cuda" = no ] && why='is built without CUDA' || why="needs a driver for CUDA $cuda (nvidia-smi shows yours)"
  echo "There is a GPU, but torch $version $why, so the CPU is used. For the GPU take another build:"
  echo "make setup TORCH='torch==${version%%+*} --index-url …' (https://pytorch.org names the index)"
fi
