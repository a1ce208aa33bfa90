#!/usr/bin/env bash
# Figure 6 of the paper, cut down to two cores: fig6.sh TRAIN OUT
# TRAIN is a folder of CIFAR-10 with images/ and labels.csv (path, clean_label).
# 40 epochs of Pre-act ResNet-32 on 5,000 images, in batches of 64.
# The paper's: without --rows, --batch-size, --epochs; for one GPU.
set -euo pipefail
: "${2:?usage: fig6.sh TRAIN OUT}"
noisyknn benchmark fig6 --images "$1/images" --labels "$1/labels.csv" --out "$2" --rows 5000 --batch-size 64 --epochs 40 --every 5
