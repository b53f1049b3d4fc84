#!/usr/bin/env bash
# install_mmcv.sh PYTHON STATE [OPERATORS]: mmcv for the torch of PYTHON; STATE holds log and marks.
#
# OPERATORS is auto: compiled operators where pip finds a wheel with some that work here; otherwise
# mmcv without any, which pip builds in seconds and mmkd/operators/ completes; or it is compiled:
# without such a wheel they are compiled here.
#
# Compiled operators fit one torch, and neither the name of a wheel nor pip's cache of earlier builds
# tells which. So they are tried, here and on the GPU where there is one, and replaced if they fail.
set -euo pipefail
python=$1 state=$2 operators=${3:-auto}
PATH=$(cd "$(dirname "$python")" && pwd):$PATH # where ninja lies
here=$(dirname "$0")
log=$state/mmcv.log
pin=$(grep '^onedl-mmcv==' "$here/openmmlab.txt")
pip=("$python" -m pip --disable-pip-version-check install --no-deps)
source=(--force-reinstall --no-binary onedl-mmcv "$pin") # or an earlier build in pip's cache

case $operators in
  auto | compiled) ;;
  *) echo "OPERATORS is auto or compiled, not '$operators'" >&2 && exit 1 ;;
esac

look() { # sets has: absent, none, compiled or broken
  has=$("$python" "$here/inspect_mmcv.py" "${pin#*==}" 2>"$state/mmcv-check.log") || has=broken
}

fail() {
  tail -n 30 "$log" >&2
  echo "mmcv could not be installed; the whole output is in $log" >&2
  [ "$operators" = auto ] || echo 'Nothing has to be compiled with: make setup OPERATORS=auto' >&2
  exit 1
}

take_wheel() { # a ready-made wheel, if pip finds one
  "${pip[@]}" --only-binary onedl-mmcv --force-reinstall "$pin" >>"$log" 2>&1 || return 0
  look
  [ "$has" != broken ] || echo "  a wheel of mmcv does not fit: $(tail -n 1 "$state/mmcv-check.log")"
}

build_without_operators() { # in pip's isolation there is no torch to compile against
  "${pip[@]}" "${source[@]}" >>"$log" 2>&1 || fail
  look
  [ "$has" = broken ] || return 0 # in pip's cache there was one compiled for another torch
  "${pip[@]}" --no-cache-dir "${source[@]}" >>"$log" 2>&1 || fail
  look
}

compile() { # further arguments of pip
  echo "compiling $pin unless pip has it in its cache: about ten minutes on two cores"
  # No debug information: it doubles the time and the memory a compiler needs.
  if CFLAGS="-g0 ${CFLAGS:-}" "${pip[@]}" -v --no-build-isolation "$@" "${source[@]}" 2>&1 |
    tee -a "$log" | sed -u -n -E -e 's/^ *\[([0-9]+)\/([0-9]+)\].*/  compiled \1 of \2/p' \
    -e 's/^ *(Building wheel for .*|Successfully .*|Using cached .*whl.*)/  \1/p'; then
    look
    return
  fi
  if ! command -v "${CXX:-c++}" >/dev/null; then
    echo 'There is no C++ compiler: install one (Debian, Ubuntu: apt install g++).' >&2
  elif ! "$python" -c 'import os, sysconfig
open(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null; then
    echo 'The headers of Python are missing (Debian, Ubuntu: apt install python3-dev).' >&2
  fi
  fail
}

hide_gpu_without_toolkit() {
  [ missing = "$("$python" "$here/inspect_mmcv.py" --toolkit)" ] || return 0
  echo 'There is a GPU but no CUDA toolkit (nvcc), so mmcv is compiled for the CPU and the GPU is not used.'
  echo 'To use it, compile nothing: make setup OPERATORS=auto'
  echo 'Or install the toolkit that torch was built with, then: make distclean setup OPERATORS=compiled'
  export CUDA_VISIBLE_DEVICES=
  touch "$state/cpu-only"
}

start=$SECONDS
rm -f "$state/cpu-only"
: >"$log"
look
[ "$has" = compiled ] || take_wheel
if [ "$operators" = auto ]; then
  case $has in none | compiled) ;; *) build_without_operators ;; esac
elif [ "$has" != compiled ]; then
  hide_gpu_without_toolkit
  look
  [ "$has" = compiled ] || compile
  # What pip had in its cache may be without operators, or compiled for another torch.
  [ "$has" = compiled ] || grep -q 'Building wheel for onedl-mmcv' "$log" || compile --no-cache-dir
fi
case $operators-$has in
  *-compiled) echo "  $pin with compiled operators, in $((SECONDS - start)) s" ;;
  auto-none)
    echo "  $pin without compiled operators, in $((SECONDS - start)) s: mmkd provides its own"
    read -r -a torch <"$state/torch-wanted"
    "$here/install_torchvision.sh" "$python" "${torch[@]}"
    ;;
  *) cat "$state/mmcv-check.log" >&2 && fail ;;
esac
