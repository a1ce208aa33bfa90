#!/usr/bin/env bash
# Table 3 of the paper: table3.sh CLOTHING1M OUT
# CLOTHING1M is the folder of the data set as it is published. For one GPU; never run by us, who cannot have the data.
set -euo pipefail
: "${2:?usage: table3.sh CLOTHING1M OUT}"
noisyknn paper table3 --clothing1m "$1" --trials 1 --out "$2"
