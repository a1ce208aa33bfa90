#!/usr/bin/env bash
# Figure 2 of the paper, cut down to two cores: fig2.sh TRAIN OUT
# TRAIN is a folder of CIFAR-10 with images/ and labels.csv (path, clean_label).
# 30 epochs of Pre-act ResNet-32 on 5,000 images, in batches of 64.
# The paper's, for one GPU: all that follows --out "$2" left out.
set -euo pipefail
: "${2:?usage: fig2.sh TRAIN OUT}"
noisyknn paper fig2 --images "$1/images" --labels "$1/labels.csv" --out "$2" --rows 5000 --batch-size 64 --epochs 30
