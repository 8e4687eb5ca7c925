#!/usr/bin/env bash
# PASCAL VOC FSOD: 3 splits of 5 novel classes (SPLITS), with 1, 2, 3, 5 and 10 shots. See pipeline.sh for the variables.
# shellcheck source=scripts/pipeline.sh
source "$(dirname "${BASH_SOURCE[0]}")/pipeline.sh"

CONFIG=${CONFIG:-$configs/pascal_voc_sam2l.yaml}
note_masks
trainval=data/pascal-voc/annotations/voc0712_trainval_masks.json
for split in ${SPLITS:-1 2 3}; do
  classes=pascal_voc_split_$split
  for shots in ${SHOTS:-1 2 3 5 10}; do
    pipeline "$classes" "$shots" "$SEED" \
      sample --split "$classes" --json-file "$trainval" --n-shot "$shots" --seed "$SEED" --out @OUT -- \
      --model.init_args.dataset_cfgs.fill_memory.class_split "$classes" \
      --model.init_args.dataset_cfgs.test.class_split "$classes"
  done
done
finish
