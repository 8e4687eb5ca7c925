#!/usr/bin/env bash
# LVIS v1, with 1, 2, 3, 5 and 10 shots. TARGETS is any of "minival val" (default: minival), CLASSES any of "all rare
# common frequent" (default: all). With CLASSES=all, a run has AP, APr, APc and APf; the other runs have only the classes
# of their group. See pipeline.sh for the variables.
# shellcheck source=scripts/pipeline.sh
source "$(dirname "${BASH_SOURCE[0]}")/pipeline.sh"

CONFIG=${CONFIG:-$configs/lvis_sam2l.yaml}
train=data/lvis/annotations/lvis_v1_train.json
cfgs=--model.init_args.dataset_cfgs
for targets in ${TARGETS:-minival}; do
  for classes in ${CLASSES:-all}; do
    group=() split=()
    if [[ $classes != all ]]; then
      group=(--dataset "lvis_$classes")
      split=("$cfgs.fill_memory.class_split" "lvis_$classes" "$cfgs.test.class_split" "lvis_$classes")
    fi
    for shots in ${SHOTS:-1 2 3 5 10}; do
      pipeline "lvis_${targets}_$classes" "$shots" "$SEED" \
        sample-references "${group[@]}" --json-file "$train" --n-shot "$shots" --seed "$SEED" --fill-up --out-path -- \
        "${split[@]}" "$cfgs.test.json_file" "data/lvis/annotations/lvis_v1_$targets.json"
    done
  done
done
finish
