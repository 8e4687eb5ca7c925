#!/usr/bin/env bash
# CD-FSOD: six data sets (DATASETS), with the 1, 5 and 10 shots that the benchmark provides. The reference sets are those
# of the published results, in which some shots are repeated (docs/datasets.md, CD-FSOD). See pipeline.sh for the
# variables.
# shellcheck source=scripts/pipeline.sh
source "$(dirname "${BASH_SOURCE[0]}")/pipeline.sh"

CONFIG=${CONFIG:-$configs/cdfsod_sam2l.yaml}
note_masks
cfgs=--model.init_args.dataset_cfgs
for dataset in ${DATASETS:-ArTaxOr clipart1k DIOR FISH NEU-DET UODD}; do
  folder=data/cdfsod/$dataset
  for shots in ${SHOTS:-1 5 10}; do
    shot_file=$folder/prepared/${shots}_shot_masks.json
    pipeline "cdfsod_$dataset" "$shots" "$SEED" references from-coco "$shot_file" @OUT "$shots" --as-published -- \
      "$cfgs.fill_memory.root" "$folder" "$cfgs.fill_memory.json_file" "$shot_file" \
      "$cfgs.fill_memory.class_split" "cdfsod_$dataset" \
      "$cfgs.test.root" "$folder" "$cfgs.test.json_file" "$folder/prepared/test.json" \
      "$cfgs.test.class_split" "cdfsod_$dataset"
  done
done
finish
