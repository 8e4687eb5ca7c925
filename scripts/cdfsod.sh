#!/usr/bin/env bash
# CD-FSOD on one data set, with the 1, 5 and 10 shots that the benchmark provides. The first argument is the data set:
# ArTaxOr, clipart1k, DIOR, FISH, NEU-DET or UODD. The reference sets are those of the published results, in which some
# shots are repeated (docs/datasets.md, CD-FSOD). See pipeline.sh for the variables.
set -euo pipefail
dataset=${1:?give a data set: ArTaxOr, clipart1k, DIOR, FISH, NEU-DET or UODD}
shift
# shellcheck source=scripts/pipeline.sh
source "$(dirname "${BASH_SOURCE[0]}")/pipeline.sh"

CONFIG=${CONFIG:-$configs/cdfsod_sam2l.yaml}
note_masks
folder=data/cdfsod/$dataset
cfgs=--model.init_args.dataset_cfgs
for shots in ${SHOTS:-1 5 10}; do
  shot_file=$folder/prepared/${shots}_shot_masks.json
  pipeline "cdfsod_$dataset" "$shots" "$SEED" coco-to-references "$shot_file" @OUT "$shots" --as-published -- \
    "$cfgs.fill_memory.root" "$folder" "$cfgs.fill_memory.json_file" "$shot_file" \
    "$cfgs.fill_memory.class_split" "cdfsod_$dataset" \
    "$cfgs.test.root" "$folder" "$cfgs.test.json_file" "$folder/prepared/test.json" \
    "$cfgs.test.class_split" "cdfsod_$dataset"
done
finish
