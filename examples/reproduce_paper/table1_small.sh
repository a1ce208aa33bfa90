#!/usr/bin/env bash
# Table 1's MNIST rows, cut down to two cores: table1_small.sh TRAIN TEST OUT
# TRAIN and TEST are folders with images/ and labels.csv (path, clean_label). 10,000 of the 60,000 rows, in batches of 32 where the
# paper has 256: a network takes as many steps as in 40 of the paper's epochs, or half as many. It trains for EPOCHS
set -euo pipefail
: "${3:?usage: table1_small.sh TRAIN TEST OUT}"
files=(--images "$1/images" --labels "$1/labels.csv" --test-images "$2/images" --test-labels "$2/labels.csv" --out "$3")
noise=(--noise symmetric-20 --noise symmetric-40 --noise symmetric-60 --noise symmetric-80 --noise asymmetric-40)
cut=(--data-set mnist --rows 10000 --trials 3)
noisyknn benchmark table1 "${files[@]}" "${noise[@]}" "${cut[@]}" --methods ce --methods sl --methods pencil --epochs 20
noisyknn benchmark table1 "${files[@]}" "${noise[@]}" "${cut[@]}" --methods joint-optimization --epochs 13
noisyknn benchmark table1 "${files[@]}" "${noise[@]}" "${cut[@]}" --methods iterknn --methods selknn --epochs 15 --episodes 2
