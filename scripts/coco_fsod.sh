#!/usr/bin/env bash
# COCO-FSOD: the 20 novel classes, with 10 and 30 shots. See pipeline.sh for the variables.
# shellcheck source=scripts/pipeline.sh
source "$(dirname "${BASH_SOURCE[0]}")/pipeline.sh"

CONFIG=${CONFIG:-$configs/coco_fewshot_10shot_sam2l.yaml}
train=data/coco/annotations/instances_train2017.json
for shots in ${SHOTS:-10 30}; do
  for seed in ${SEEDS:-$SEED}; do
    pipeline few_shot_classes "$shots" "$seed" \
      sample --split few_shot_classes --json-file "$train" --n-shot "$shots" --seed "$seed" \
      --out @OUT --
  done
done
finish
