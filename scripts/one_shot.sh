#!/usr/bin/env bash
# How much one reference matters: of each class of COCO-FSOD alone (CLASSES), one run per reference (SEEDS, 1 to 10). The
# report has each run and the mean and standard deviation per class. See pipeline.sh for the other variables. Give
# --model.init_args.cache_dir DIR: all runs then share the proposals, which are nearly all the work.
# shellcheck source=scripts/pipeline.sh
source "$(dirname "${BASH_SOURCE[0]}")/pipeline.sh"

CONFIG=${CONFIG:-$configs/coco_fewshot_10shot_sam2l.yaml}
train=data/coco/annotations/instances_train2017.json
classes='person,bicycle,car,motorcycle,airplane,bus,train,boat,bird,cat,dog,horse,sheep,cow,bottle,chair,couch,potted plant,'
IFS=, read -ra chosen <<<"${CLASSES:-${classes}dining table,tv}"
cfgs=--model.init_args.dataset_cfgs
for class in "${chosen[@]}"; do
  for seed in ${SEEDS:-1 2 3 4 5 6 7 8 9 10}; do
    pipeline "one_shot_${class// /_}" 1 "$seed" \
      sample --cat-names "$class" --json-file "$train" --n-shot 1 --seed "$seed" --out @OUT -- \
      "$cfgs.fill_memory.class_split" null "$cfgs.fill_memory.cat_names" "$class" \
      "$cfgs.test.class_split" null "$cfgs.test.cat_names" "$class" \
      --model.init_args.model_cfg.memory_bank_cfg.category_num 1
  done
done
finish
