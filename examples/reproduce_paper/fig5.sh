#!/usr/bin/env bash
# Figure 5 of the paper, cut down to two cores: fig5.sh TRAIN OUT
# TRAIN is a folder of CIFAR-10 with images/ and labels.csv (path, clean_label).
# 30 epochs of Pre-act ResNet-32 on 10,000 images, in batches of 64. SelKNN has 2,000 references in place of 10,000: its curve of
# 1,000 neighbours is one of half of them.
# The paper's, for one GPU: all that follows --out "$2" left out but --every 10.
set -euo pipefail
: "${2:?usage: fig5.sh TRAIN OUT}"
noisyknn paper fig5 --images "$1/images" --labels "$1/labels.csv" --out "$2" --rows 10000 --batch-size 64 --epochs 30 --every 5
