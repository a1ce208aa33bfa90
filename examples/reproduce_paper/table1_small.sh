#!/usr/bin/env bash
# Table 1's MNIST rows, cut down to two cores: table1_small.sh TRAIN TEST OUT
# TRAIN and TEST are folders with images/ and labels.csv (path, clean_label). Two processes of one thread each fill OUT/one and
# OUT/two. 10,000 of the 60,000 rows, three trials, in batches of 32 where the paper has 256, at 20 pixels of 28, half the work.
# CE, SL and PENCIL train one network for 30 epochs, as many steps as the paper's 40. IterKNN and SelKNN train three networks for
# two fifths as many: two episodes, with M 20 and 30 %, and the final training. Joint Optimization trains one network for 13
# epochs and another for 8.
set -euo pipefail
: "${3:?usage: table1_small.sh TRAIN TEST OUT}"
export OMP_NUM_THREADS=1
files=(--images "$1/images" --labels "$1/labels.csv" --test-images "$2/images" --test-labels "$2/labels.csv")
noise=(--noise symmetric-20 --noise symmetric-40 --noise symmetric-60 --noise symmetric-80 --noise asymmetric-40)
cut=(--data-set mnist --rows 10000 --batch-size 32 --image-size 20 --trials 3)
noisyknn paper table1 "${files[@]}" "${noise[@]}" "${cut[@]}" --out "$3/one" --methods ce --methods sl --methods pencil --epochs 30 &
one=$!
noisyknn paper table1 "${files[@]}" "${noise[@]}" "${cut[@]}" --out "$3/two" --methods joint-optimization --epochs 13
noisyknn paper table1 "${files[@]}" "${noise[@]}" "${cut[@]}" --out "$3/two" --methods iterknn --methods selknn --epochs 12 --episodes 2
wait "$one"
