#!/usr/bin/env bash
# What one GPU does, in under ten minutes and without a network: contract checks, pictures beside the CPU's, the speed
# protocol to 4096, 300 steps of Gatys, a short training. In a checkout:
#
#   benchmarks/gpu.sh OUT [--device cuda] [--seconds 540] [--wheels DIR]
#
# Needs Python 3.11 or later (PYTHON=python3) with torch; what that machine lacks of pyproject.toml is taken from the wheels
# in DIR (pip download makes such a folder elsewhere) and goes when it goes. OUT gets stages.tsv, a log per stage, rows.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: gpu.sh OUT [options of benchmarks/gpu.py]" >&2; exit 2; }
root=$(realpath "$(dirname "$0")/..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
arguments=()
while [ $# -gt 0 ]; do
  if [ "$1" = --wheels ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" "$2"/*.whl
    shift 2
  else
    arguments+=("$1")
    shift
  fi
done
export PYTHONPATH="$root:$work/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
"$python" "$root/benchmarks/gpu.py" "${arguments[@]}"
