#!/usr/bin/env bash
# A data-prep job: clean a table of labels, keep the summary, and stop when too many labels changed.
# Usage: clean_and_gate.sh IMAGES LABELS OUT
set -euo pipefail
images=$1 labels=$2 out=$3

noisyknn clean --images "$images" --labels "$labels" --out "$out" --summary "$out.summary.json" --overwrite
python3 - "$out.summary.json" <<'PY'
import json
import sys

summary = json.load(open(sys.argv[1]))
share = summary["status"]["corrected"] / summary["rows"]
print(f"{share:.1%} of the labels were corrected")
sys.exit(share > 0.5)
PY
