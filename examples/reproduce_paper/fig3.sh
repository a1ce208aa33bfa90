#!/usr/bin/env bash
# Figure 3 of the paper, cut down to two cores: fig3.sh TRAIN OUT
# TRAIN is a folder of CIFAR-10 with images/ and labels.csv (path, clean_label).
# 40 epochs of Pre-act ResNet-32 on 10,000 images, in batches of 64. A class has 200 references in place of 1,000, so 50
# vote in place of 100.
# The paper's, for one GPU: all that follows --out "$2" left out.
set -euo pipefail
: "${2:?usage: fig3.sh TRAIN OUT}"
noisyknn paper fig3 --images "$1/images" --labels "$1/labels.csv" --out "$2" --rows 10000 --batch-size 64 --epochs 40 --k 50 --every 4
