#!/usr/bin/env bash
# Figure 4 of the paper, cut down to two cores: fig4.sh TRAIN OUT
# TRAIN is a folder of MNIST with images/ and labels.csv (path, clean_label): at 80 % noise so few steps teach nothing of
# CIFAR-10. Three times five episodes of 12 epochs of the paper's network for MNIST on 10,000 images, in batches of 32.
# The paper's, for one GPU and CIFAR-10: all that follows --out "$2" left out.
set -euo pipefail
: "${2:?usage: fig4.sh TRAIN OUT}"
noisyknn paper fig4 --images "$1/images" --labels "$1/labels.csv" --out "$2" --preset mnist --rows 10000 --batch-size 32 --epochs 12 --episodes 5
