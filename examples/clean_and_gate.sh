#!/usr/bin/env bash
# A data-prep job: clean a table of labels, keep the summary, and fail if more than a fifth of the labels are probably wrong.
# Usage: clean_and_gate.sh IMAGES LABELS OUT. It exits with 4 if the gate fails; the table is written in both cases.
set -euo pipefail
[ $# = 3 ] || { sed -n 2,3p "$0" >&2; exit 2; }
images=$1 labels=$2 out=$3

noisyknn clean --images "$images" --labels "$labels" --out "$out" --summary "$out.summary.json" --max-noise 0.2 --overwrite
