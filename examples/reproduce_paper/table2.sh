#!/usr/bin/env bash
# Table 2 of the paper, whole: table2.sh ROOT OUT
# ROOT is where torchvision keeps CIFAR-10 (fetched if it is not there). Cells that table1.sh has left in OUT are not run
# again. For one GPU.
set -euo pipefail
: "${2:?usage: table2.sh ROOT OUT}"
noisyknn paper table2 --data-set cifar10 --torchvision "$1" --download --trials 10 --out "$2"
