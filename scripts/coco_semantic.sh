#!/usr/bin/env bash
# COCO-20i semantic segmentation: 4 folds of 20 classes (FOLDS), with 1 and 5 shots, seed 42. See pipeline.sh for the
# variables.
SEED=${SEED:-42}
# shellcheck source=scripts/pipeline.sh
source "$(dirname "${BASH_SOURCE[0]}")/pipeline.sh"

CONFIG=${CONFIG:-$configs/coco_semantic_sam2l.yaml}
train=data/coco/annotations/instances_train2017.json
for fold in ${FOLDS:-1 2 3 4}; do
  classes=coco_semantic_split_$fold
  for shots in ${SHOTS:-1 5}; do
    pipeline "$classes" "$shots" "$SEED" \
      sample --split "$classes" --json-file "$train" --n-shot "$shots" --seed "$SEED" --out @OUT -- \
      --coco_semantic_split "$fold"
  done
done
finish
