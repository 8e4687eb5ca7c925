#!/usr/bin/env bash
# FSOD-VFM (arXiv 2602.03137) on COCO-FSOD, PASCAL VOC and CD-FSOD: its references, its proposals and its rule, which is
# configs/fsod_vfm.yaml (docs/experiments.md, FSOD-VFM). It needs, besides the data sets as `prepare` makes them,
#
#   SETS        the folder of its reference sets, as in its repository; default: data/fsod_vfm
#   PROPOSALS   the folder of its boxes, one COCO results file per data set, named by the data set: coco.json, voc.json,
#               cdfsod_ArTaxOr.json, ... (docs/experiments.md, UPN); default: data/proposals
#   BENCHMARKS  which of "coco voc cdfsod"; default: all
#   SAM2        the SAM 2 that makes the masks of references; default: sam2.1_hiera_large
#
# See pipeline.sh for the other variables.
MODE=fsod_vfm
# shellcheck source=scripts/pipeline.sh
source "$(dirname "${BASH_SOURCE[0]}")/pipeline.sh"

SETS=${SETS:-data/fsod_vfm}
PROPOSALS=${PROPOSALS:-data/proposals}
cfgs=--model.init_args.dataset_cfgs

# reproduce DATASET SHOTS CONFIG SET BOXES IMAGES TARGETS OPTION...: one run.
reproduce() {
  local dataset=$1 shots=$2 set=$SETS/$4.json boxes=$PROPOSALS/$5.json images=$6 targets=$7
  CONFIG=$3
  local masks=$RESULTS_DIR/fsod_vfm_references/$4.json
  if ! unless "$masks" boxes-to-masks "$set" --image-dir "$images" --categories "$targets" \
    --sam2 "${SAM2:-sam2.1_hiera_large}" --out "$masks"; then
    failed=$((failed + 1))
    return
  fi
  pipeline "$dataset" "$shots" "$SEED" references from-coco "$masks" @OUT "$shots" -- \
    --model.init_args.model_cfg.proposals "$boxes" \
    "$cfgs.fill_memory.root" "$images" "$cfgs.fill_memory.json_file" "$masks" \
    "$cfgs.fill_memory.class_split" "$dataset" "$cfgs.test.class_split" "$dataset" "${@:8}"
}

for benchmark in ${BENCHMARKS:-coco voc cdfsod}; do
  case $benchmark in
    coco)
      for shots in ${SHOTS:-10 30}; do
        reproduce few_shot_classes "$shots" "$configs/coco_fewshot_10shot_sam2l.yaml" \
          "coco_few_shot_${shots}shot_seed33" coco data/coco data/coco/annotations/instances_val2017.json
      done
      ;;
    voc)
      for split in ${SPLITS:-1 2 3}; do
        for shots in ${SHOTS:-1 2 3 5 10}; do
          reproduce "pascal_voc_split_$split" "$shots" "$configs/pascal_voc_sam2l.yaml" \
            "voc_split${split}_${shots}shot_seed33" voc data/pascal-voc/VOCdevkit \
            data/pascal-voc/annotations/voc07_test.json
        done
      done
      ;;
    cdfsod)
      for name in ${DATASETS:-ArTaxOr clipart1k DIOR FISH NEU-DET UODD}; do
        for shots in ${SHOTS:-1 5 10}; do
          folder=data/cdfsod/$name
          reproduce "cdfsod_$name" "$shots" "$configs/cdfsod_sam2l.yaml" \
            "CDFSOD_${name}_${shots}_shot_converted" "cdfsod_$name" "$folder" "$folder/prepared/test.json" \
            "$cfgs.test.root" "$folder" "$cfgs.test.json_file" "$folder/prepared/test.json"
        done
      done
      ;;
    *)
      echo "error: BENCHMARKS has $benchmark: choose among coco, voc and cdfsod" >&2
      exit 2
      ;;
  esac
done
finish
