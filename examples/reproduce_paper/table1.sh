#!/usr/bin/env bash
# Table 1 of the paper, whole: table1.sh mnist|cifar10|cifar100 ROOT OUT
# ROOT is where torchvision keeps the data set (fetched if it is not there). Ten trials of 42 cells; for one GPU.
set -euo pipefail
: "${3:?usage: table1.sh mnist|cifar10|cifar100 ROOT OUT}"
noisyknn paper table1 --data-set "$1" --torchvision "$2" --download --trials 10 --out "$3"
