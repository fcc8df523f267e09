#!/usr/bin/env bash
# Make the repository's own boards: tools/make_leaderboards.sh [DATA]
#
# DATA holds the mini sets that leaderboards/README.md describes: voc_mini, coco_mini, fss_mini,
# davis_mini and weights_found. Without it only the board of shapes is made. Runs that were finished
# before are not repeated, so a killed script goes on when it is started again.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-runs}

evaluate() { fssbench evaluate "$@" --out "$runs"; }

evaluate prototype --shots 1,5
evaluate prototype --shots 1,5 -o layer=layer3.2
evaluate prototype --shots 1,5 --backbone tiny-vit
evaluate prototype --shots 1,5 --backbone filterbank
evaluate prototype --shots 1,5 --weights random
evaluate prototype --protocol shapes/v1-1k-wrong-mask

if [ $# -gt 0 ]; then
    data=$1
    imagenet=$data/weights_found/mobilenet_v2_imagenet_uint8.npz
    real() {
        evaluate prototype --backbone mobilenetv2 --weights "$imagenet" "$@"
        evaluate prototype --backbone mobilenetv2 --weights random "$@"
        evaluate prototype --backbone filterbank "$@"
    }
    real --protocol pascal5i/v1-1k --data-root "$data/voc_mini" --shots 1,5
    real --protocol coco20i/v1-mini --data-root "$data/coco_mini" --shots 1,5
    real --protocol fss1000/v1 --data-root "$data/fss_mini" --shots 1
    real --protocol fss1000/v1-mini --data-root "$data/fss_mini" --shots 1,5
    real --protocol folder/v1 --data-root "$data/davis_mini" --shots 1,5
fi

fssbench board build "$runs" --out leaderboards
fssbench board check leaderboards
