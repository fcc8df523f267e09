#!/usr/bin/env bash
# Make the repository's own boards: tools/make_leaderboards.sh [DATA]
#
# DATA holds the mini sets that leaderboards/README.md describes: voc_mini, coco_mini, fss_mini,
# davis_mini and weights_found. Without it only the board of shapes is made. Runs that were finished
# before are not repeated, so a killed script goes on when it is started again.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-runs}
trainings=${TRAININGS:-trainings}

evaluate() { fssbench evaluate "$@" --out "$runs"; }

# train FOLDER ARGUMENTS: unless that training has been finished; sets $checkpoint.
train() {
    local folder=$1
    shift
    fssbench train "$@" --resume --out "$trainings"
    checkpoint=$(ls -t "$trainings"/$folder/last.safetensors | head -n 1)
}

evaluate prototype --shots 1,5
evaluate prototype --shots 1,5 -o layer=layer3.2
evaluate prototype --shots 1,5 --backbone tiny-vit
evaluate prototype --shots 1,5 --backbone filterbank
evaluate prototype --shots 1,5 --weights random
evaluate prototype --protocol shapes/v1-1k-wrong-mask

# Trained on a CPU: about 7 minutes a fold (dcama) and 8 (hdmnet) on two idle cores.
for fold in 0 1 2 3; do
    train "shapes/dcama--tiny-resnet--meta--*/fold$fold-seed0" \
        dcama --dataset shapes --fold $fold --precision bf16
    evaluate --checkpoint "$checkpoint" --fold $fold --shots 1,5
    evaluate --checkpoint "$checkpoint" --fold $fold --protocol shapes/v1-1k-wrong-mask

    train "shapes/hdmnet--tiny-resnet--base--*/fold$fold-seed0" \
        hdmnet --stage base --dataset shapes --fold $fold
    base=$checkpoint
    for options in "" "-o support_mask=false"; do
        train "shapes/hdmnet--tiny-resnet--meta--*/fold$fold-seed0" \
            hdmnet --stage meta --dataset shapes --fold $fold --precision bf16 \
            --init "$base" --validation-episodes 0 $options
        evaluate --checkpoint "$checkpoint" --fold $fold --shots 1,5
    done
done

if [ $# -gt 0 ]; then
    data=$1
    imagenet=$data/weights_found/mobilenet_v2_imagenet_uint8.npz
    real() {
        evaluate prototype --backbone mobilenetv2 --weights "$imagenet" "$@"
        evaluate prototype --backbone mobilenetv2 --weights random "$@"
        evaluate prototype --backbone filterbank "$@"
    }
    real --protocol pascal5i/v1-1k --data-root "$data/voc_mini" --shots 1,5
    for fold in 0 1 2 3; do
        train "pascal5i/dcama--mobilenetv2--meta--*/fold$fold-seed0" \
            dcama --dataset pascal5i --data-root "$data/voc_mini" --recipe pascal5i-mini --fold $fold \
            --weights "$imagenet" --precision bf16 --validation-episodes 0
        evaluate --checkpoint "$checkpoint" --weights "$imagenet" --fold $fold --shots 1,5 \
            --protocol pascal5i/v1-1k --data-root "$data/voc_mini"
    done
    real --protocol coco20i/v1-mini --data-root "$data/coco_mini" --shots 1,5
    real --protocol fss1000/v1 --data-root "$data/fss_mini" --shots 1
    real --protocol fss1000/v1-mini --data-root "$data/fss_mini" --shots 1,5
    real --protocol folder/v1 --data-root "$data/davis_mini" --shots 1,5
fi

fssbench board build "$runs" --out leaderboards
fssbench board check leaderboards
