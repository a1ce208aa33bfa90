#!/usr/bin/env bash
# Figure 4 of the paper, cut down to two cores: fig4.sh TRAIN OUT
# TRAIN is a folder of CIFAR-10 with images/ and labels.csv (path, clean_label).
# Three times four episodes of 8 epochs of Pre-act ResNet-32 on 5,000 images, in batches of 64. A class has 100 references in
# place of 1,000 in the first episode, so 20 vote in place of 100.
# The paper's, for one GPU: all that follows --out "$2" left out.
set -euo pipefail
: "${2:?usage: fig4.sh TRAIN OUT}"
noisyknn benchmark fig4 --images "$1/images" --labels "$1/labels.csv" --out "$2" --rows 5000 --batch-size 64 --epochs 8 --episodes 4 --k 20
