#!/usr/bin/env bash
# Table 1's MNIST rows, cut down to two cores: table1_small.sh TRAIN TEST OUT
# TRAIN and TEST are folders with images/ and labels.csv (path, clean_label). 10,000 of the 60,000 rows, three trials, in batches
# of 32 where the paper has 256, at 20 pixels of 28, half the work. A network that is the only one trains for 30 epochs, as many
# steps as the paper's take in 40.
# IterKNN and SelKNN train three, of two fifths as many: in two episodes, of which M is 20 and 30 %, and in the final training.
# Joint Optimization trains one of 13 epochs and another of 8. Run twice at once, with a thread each (OMP_NUM_THREADS=1), it
# shares the cells out and ends sooner.
set -euo pipefail
: "${3:?usage: table1_small.sh TRAIN TEST OUT}"
files=(--images "$1/images" --labels "$1/labels.csv" --test-images "$2/images" --test-labels "$2/labels.csv" --out "$3")
noise=(--noise symmetric-20 --noise symmetric-40 --noise symmetric-60 --noise symmetric-80 --noise asymmetric-40)
cut=(--data-set mnist --rows 10000 --batch-size 32 --image-size 20 --trials 3)
noisyknn paper table1 "${files[@]}" "${noise[@]}" "${cut[@]}" --methods ce --methods sl --methods pencil --epochs 30
noisyknn paper table1 "${files[@]}" "${noise[@]}" "${cut[@]}" --methods joint-optimization --epochs 13
noisyknn paper table1 "${files[@]}" "${noise[@]}" "${cut[@]}" --methods iterknn --methods selknn --epochs 12 --episodes 2
