#!/usr/bin/env bash
# LVIS v1, with 1, 2, 3, 5 and 10 shots, seed 42. TARGETS is any of "minival val" (default: minival), CLASSES any of "all
# rare common frequent" (default: all). With CLASSES=all, a run has AP, APr, APc and APf; the other runs have only the
# classes of their group. As in the published results, their references are those of a set drawn for all classes. See
# pipeline.sh for the variables.
SEED=${SEED:-42}
# shellcheck source=scripts/pipeline.sh
source "$(dirname "${BASH_SOURCE[0]}")/pipeline.sh"

CONFIG=${CONFIG:-$configs/lvis_sam2l.yaml}
train=data/lvis/annotations/lvis_v1_train.json
cfgs=--model.init_args.dataset_cfgs
for targets in ${TARGETS:-minival}; do
  for classes in ${CLASSES:-all}; do
    split=()
    if [[ $classes != all ]]; then
      split=("$cfgs.fill_memory.class_split" "lvis_$classes" "$cfgs.test.class_split" "lvis_$classes")
    fi
    for shots in ${SHOTS:-1 2 3 5 10}; do
      pipeline "lvis_${targets}_$classes" "$shots" "$SEED" \
        sample --split lvis --json-file "$train" --n-shot "$shots" --seed "$SEED" --out @OUT -- \
        "${split[@]}" "$cfgs.test.json_file" "data/lvis/annotations/lvis_v1_$targets.json"
    done
  done
done
finish
