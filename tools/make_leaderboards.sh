#!/usr/bin/env bash
# Make the repository's own boards: tools/make_leaderboards.sh [DATA]
#
# DATA contains the mini sets that leaderboards/README.md describes: voc_mini, coco_mini, fss_mini,
# davis_mini and weights_found. Without it, only the board of shapes is made. Finished runs are
# not repeated, so run the script again after an interruption. JOBS=N trains N folds at a time; give
# each its own core with OMP_NUM_THREADS=1.
#
# TRIAL=1 runs each command once with two training steps and two episodes, in a new temporary folder
# that is removed at the end, and leaves leaderboards/ as it is. RUNS, TRAININGS and FEATURES have no
# effect then.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${RUNS:-runs}
trainings=${TRAININGS:-trainings}
features=${FEATURES:-features} # features of DINOv2 on disk, which runs share
jobs=${JOBS:-1}
precision=${PRECISION:-bf16} # fp32 on a CPU without AVX-512, which emulates bf16 slowly
boards=leaderboards
few_episodes=()
few_steps=()
if [ -n "${TRIAL:-}" ]; then
    trial=$(mktemp -d)
    trap 'rm -rf "$trial"' EXIT
    runs=$trial/runs trainings=$trial/trainings features=$trial/features boards=$trial/boards
    few_episodes=(--limit 2) few_steps=(--steps 2)
fi

# Run a function of a fold for each fold, at most $jobs at a time.
each_fold() {
    local fold children=()
    for fold in 0 1 2 3; do
        while [ "$(jobs -pr | wc -l)" -ge "$jobs" ]; do sleep 1; done
        "$1" "$fold" &
        children+=($!)
    done
    for fold in 0 1 2 3; do wait "${children[$fold]}"; done
}

evaluate() { fssbench evaluate "$@" "${few_episodes[@]}" --out "$runs"; }

# Train, or resume a training, and set $checkpoint to its last checkpoint.
train() {
    local result
    result=$(fssbench train "$@" "${few_steps[@]}" --resume --json --out "$trainings")
    checkpoint=$(python -c 'import json, sys; print(json.load(sys.stdin)["last"])' <<<"$result")
}

evaluate prototype --shots 1,5
evaluate prototype --shots 1,5 -o layer=layer3.2
evaluate prototype --shots 1,5 --backbone tiny-vit
evaluate prototype --shots 1,5 --backbone filterbank
evaluate prototype --shots 1,5 --weights random
evaluate prototype --protocol shapes/v1-1k-wrong-mask
evaluate prototype --protocol shapes/v1-1k-shared-class --shots 1,5
evaluate prototype --protocol shapes/v1-1k-shared-class --shots 1,5 --backbone tiny-vit

evaluate prototype --protocol shapes/v1-1k-2way
evaluate repri -o head=none
evaluate insid3 --encoder features=tiny-vit
# Random weights, which never rank: the pretrained models are no part of this repository.
evaluate gf-sam --encoder features=tiny-vit --encoder masks=promptable-tiny-sam \
    --weights masks=random --fold 0
evaluate seggpt --encoder model=seggpt-tiny --weights random --fold 0
evaluate clipseg --encoder model=clipseg-tiny --weights random --fold 0
evaluate clipseg-text --encoder model=clipseg-tiny --weights random --fold 0

# Trained on a CPU, each in about 10 minutes of one core.
shapes() {
    local fold=$1 base mask checkpoint
    train hsnet --dataset shapes --fold $fold --validation-episodes 0
    evaluate --checkpoint "$checkpoint" --fold $fold --shots 1,5

    train dcama --dataset shapes --fold $fold --precision "$precision"
    evaluate --checkpoint "$checkpoint" --fold $fold --shots 1,5
    evaluate --checkpoint "$checkpoint" --fold $fold --protocol shapes/v1-1k-wrong-mask
    evaluate --checkpoint "$checkpoint" --fold $fold --shots 1,5 \
        --protocol shapes/v1-1k-shared-class

    train hdmnet --stage base --dataset shapes --fold $fold
    base=$checkpoint
    for mask in true false; do
        train hdmnet --stage meta --dataset shapes --fold $fold --precision "$precision" \
            --init "$base" --validation-episodes 0 -o support_mask=$mask
        evaluate --checkpoint "$checkpoint" --fold $fold
        evaluate --checkpoint "$checkpoint" --fold $fold --protocol shapes/v1-1k-shared-class
        if [ $mask = true ]; then
            evaluate --checkpoint "$checkpoint" --fold $fold --shots 5
            evaluate --checkpoint "$checkpoint" --fold $fold --shots 5 \
                --protocol shapes/v1-1k-shared-class
            evaluate --checkpoint "$checkpoint" --fold $fold --protocol shapes/v1-1k-wrong-mask
        fi
    done

    train fsdino --stage meta --dataset shapes --fold $fold --validation-episodes 0
    evaluate --checkpoint "$checkpoint" --fold $fold --shots 1,5
    evaluate --checkpoint "$checkpoint" --fold $fold --protocol shapes/v1-1k-wrong-mask
    evaluate --checkpoint "$checkpoint" --fold $fold --shots 1,5 \
        --protocol shapes/v1-1k-shared-class

    train uinofss --stage meta --dataset shapes --fold $fold --validation-episodes 0
    evaluate --checkpoint "$checkpoint" --fold $fold --shots 1,5
    evaluate --checkpoint "$checkpoint" --fold $fold --shots 1,5 \
        --protocol shapes/v1-1k-shared-class
}
each_fold shapes

if [ $# -gt 0 ]; then
    data=$1
    imagenet=$data/weights_found/mobilenet_v2_imagenet_uint8.npz
    dino=$data/weights_found/dinov2_s_fp16.safetensors
    real() {
        evaluate prototype --backbone mobilenetv2 --weights "$imagenet" "$@"
        evaluate prototype --backbone mobilenetv2 --weights random "$@"
        evaluate prototype --backbone filterbank "$@"
    }
    voc=(--protocol pascal5i/v1-1k --data-root "$data/voc_mini")
    real "${voc[@]}" --shots 1,5
    no_mask=(--protocol pascal5i/v1-1k-no-mask --data-root "$data/voc_mini")
    dino_prototype() {
        evaluate prototype --backbone dinov2-s --weights "$dino" --cache-dir "$features" "$@"
    }
    dino_prototype "${voc[@]}" --shots 1,5
    dino_prototype "${no_mask[@]}"
    evaluate prototype --backbone mobilenetv2 --weights "$imagenet" "${no_mask[@]}"
    evaluate repri -o head=none --backbone dinov2-s --weights "$dino" "${voc[@]}"
    evaluate insid3 --encoder features=dinov2-s --weights "features=$dino" "${voc[@]}"
    evaluate prototype --backbone mobilenetv2 --weights "$imagenet" \
        --protocol pascal5i/v1-1k-2way --data-root "$data/voc_mini"

    # DCAMA and HDMNet on MobileNetV2, in some minutes of a core.
    photographs() {
        local fold=$1 base masks checkpoint
        train dcama --dataset pascal5i --data-root "$data/voc_mini" --recipe pascal5i-mini \
            --fold $fold --weights "$imagenet" --precision "$precision" --validation-episodes 0
        evaluate --checkpoint "$checkpoint" --weights "$imagenet" --fold $fold --shots 1,5 \
            "${voc[@]}"
        evaluate --checkpoint "$checkpoint" --weights "$imagenet" --fold $fold "${no_mask[@]}"
        train hdmnet --stage base --dataset pascal5i --data-root "$data/voc_mini" \
            --recipe pascal5i-mini --fold $fold --weights "$imagenet" --precision "$precision" \
            --validation-episodes 0
        base=$checkpoint
        for masks in true false; do
            train hdmnet --stage meta --dataset pascal5i --data-root "$data/voc_mini" \
                --recipe pascal5i-mini --fold $fold --init "$base" -o support_mask=$masks \
                --precision "$precision" --validation-episodes 0
            evaluate --checkpoint "$checkpoint" --fold $fold --shots 1,5 "${voc[@]}"
        done
    }
    each_fold photographs

    # FS-DINO and compact UINO-FSS on DINOv2-S at 518 pixels, each in about 20 minutes of a core.
    dino_fold() {
        local fold=$1 method checkpoint
        local training=(--stage meta --dataset pascal5i --data-root "$data/voc_mini" --fold $fold
            --weights "$dino" --validation-episodes 0 --cache-dir "$features")
        local trained=(--weights "$dino" --fold $fold --cache-dir "$features")
        train fsdino "${training[@]}" --recipe pascal5i-mini --precision "$precision"
        evaluate --checkpoint "$checkpoint" "${trained[@]}" "${voc[@]}"
        for method in fsdino uinofss-comp; do
            train $method "${training[@]}" --recipe pascal5i-mini-compact
            evaluate --checkpoint "$checkpoint" "${trained[@]}" "${voc[@]}" --shots 1,5
            evaluate --checkpoint "$checkpoint" "${trained[@]}" "${no_mask[@]}"
        done
    }
    each_fold dino_fold

    # The same on the photographs of COCO, tested there and on sets that they were not trained on.
    coco_fold() {
        local fold=$1 method checkpoint
        local trained=(--weights "$dino" --cache-dir "$features" --shots 1,5)
        for method in fsdino uinofss-comp; do
            train $method --stage meta --dataset coco20i --data-root "$data/coco_mini" \
                --recipe coco20i-mini-compact --fold $fold --weights "$dino" \
                --validation-episodes 0 --cache-dir "$features"
            evaluate --checkpoint "$checkpoint" "${trained[@]}" --fold $fold \
                --protocol coco20i/v1-mini --data-root "$data/coco_mini"
            evaluate --checkpoint "$checkpoint" "${trained[@]}" \
                --protocol fss1000/v1-mini --data-root "$data/fss_mini"
            evaluate --checkpoint "$checkpoint" "${trained[@]}" \
                --protocol folder/v1 --data-root "$data/davis_mini"
        done
    }
    each_fold coco_fold

    real --protocol coco20i/v1-mini --data-root "$data/coco_mini" --shots 1,5
    dino_prototype --protocol coco20i/v1-mini --data-root "$data/coco_mini" --shots 1,5
    real --protocol fss1000/v1 --data-root "$data/fss_mini" --shots 1
    real --protocol fss1000/v1-mini --data-root "$data/fss_mini" --shots 1,5
    dino_prototype --protocol fss1000/v1-mini --data-root "$data/fss_mini" --shots 1,5
    real --protocol folder/v1 --data-root "$data/davis_mini" --shots 1,5
    dino_prototype --protocol folder/v1 --data-root "$data/davis_mini" --shots 1,5
fi

fssbench board build "$runs" --out "$boards"
fssbench board check "$boards"
