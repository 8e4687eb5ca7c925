#!/usr/bin/env bash
# All 80 classes of COCO, with 10 shots. See pipeline.sh for the variables.
# shellcheck source=scripts/pipeline.sh
source "$(dirname "${BASH_SOURCE[0]}")/pipeline.sh"

CONFIG=${CONFIG:-$configs/coco_fewshot_10shot_sam2l.yaml}
train=data/coco/annotations/instances_train2017.json
split=--model.init_args.dataset_cfgs
for shots in ${SHOTS:-10}; do
  pipeline coco "$shots" "$SEED" \
    sample --split coco --json-file "$train" --n-shot "$shots" --seed "$SEED" --out @OUT -- \
    "$split.fill_memory.class_split" coco "$split.test.class_split" coco
done
finish
