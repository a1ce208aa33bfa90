#!/usr/bin/env bash
# Two cells of Tables 1 and 2 on CIFAR-10, cut down to two cores: cifar10_small.sh TRAIN TEST OUT
# TRAIN and TEST are folders with images/ and labels.csv (path, clean_label). 10,000 of the 50,000 rows, in batches of 64 where the
# paper has 512; one trial. CE's network and each of SelKNN's three take 50 epochs of 157 steps, where the paper's take 120 of 98.
# A fifth of the references, so a fifth of the neighbours.
set -euo pipefail
: "${3:?usage: cifar10_small.sh TRAIN TEST OUT}"
files=(--images "$1/images" --labels "$1/labels.csv" --test-images "$2/images" --test-labels "$2/labels.csv" --out "$3")
cut=(--data-set cifar10 --noise symmetric-40 --rows 10000 --batch-size 64 --trials 1)
noisyknn paper table1 "${files[@]}" "${cut[@]}" --methods ce --epochs 50
noisyknn paper table1 "${files[@]}" "${cut[@]}" --methods selknn --epochs 50 --episodes 2 --k 20
