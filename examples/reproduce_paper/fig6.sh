#!/usr/bin/env bash
# Figure 6 of the paper, cut down to two cores: fig6.sh TRAIN OUT
# TRAIN is a folder of CIFAR-10 with images/ and labels.csv (path, clean_label).
# 40 epochs of Pre-act ResNet-32 on 5,000 images, in batches of 64. A class has 100 references in place of 1,000, so 20 vote
# in place of 100.
# The paper's, for one GPU: all that follows --out "$2" left out.
set -euo pipefail
: "${2:?usage: fig6.sh TRAIN OUT}"
noisyknn paper fig6 --images "$1/images" --labels "$1/labels.csv" --out "$2" --rows 5000 --batch-size 64 --epochs 40 --k 20 --every 5
