#!/usr/bin/env bash
# Ablations on COCO-FSOD, 10 shots: STUDY is "components" (the default), "encoders", "sam2" or "blur". One row per variant
# in the report, all with the references of the same seed. VARIANTS chooses some of the rows. See pipeline.sh for the other
# variables. With --model.init_args.cache_dir DIR, variants of the same networks share the proposals.
set -euo pipefail
args=--model.init_args
settings=$args.model_cfg.sam2_infer_cfgs
encoder=$args.model_cfg.encoder_cfg.name
declare -A rows
case ${STUDY:=components} in
  components)
    rows=(
      [paper]="" [no_merging]="$settings.merge_exponent 0" [merging_by_overlap]="$settings.merging overlap"
      [hard_merging]="$settings.merging hard" [exponent_1]="$settings.merge_exponent 1" [no_nms]="$settings.suppression none"
      [soft_nms]="$settings.suppression soft_nms" [area_weighted]="$settings.prototype area_weighted"
      [no_context]="$args.dataset_cfgs.fill_memory.context_ratio 0" [points_16]="$settings.points_per_side 16"
      [points_64]="$settings.points_per_side 64" [several_scales]="$settings.tiles 2"
    )
    ;;
  encoders)
    for name in dinov2_{small,base,large,giant} dinov3_{base,large} clip_{b16,l14} PE-Spatial-L14-448 tipsv2_large; do
      rows[$name]="$encoder $name"
    done
    ;;
  sam2)
    for name in sam2_hiera_{t,s,b+,l} sam2.1_hiera_{t,s,b+,l}; do rows[$name]="$args.model_cfg.sam2_cfg_file $name"; done
    ;;
  blur) for side in 0 3 7 15 25 51 101; do rows[blur_$side]="$args.dataset_cfgs.fill_memory.blur_ksize $side"; done ;;
  *)
    echo "error: STUDY is $STUDY: choose components, encoders, sam2 or blur" >&2
    exit 2
    ;;
esac

status=0
for variant in ${VARIANTS:-$(printf '%s\n' "${!rows[@]}" | sort)}; do
  if [[ ! -v rows[$variant] ]]; then
    echo "error: $STUDY has no variant $variant: choose from ${!rows[*]}" >&2
    exit 2
  fi
  # shellcheck disable=SC2086 # the options are words
  SHOTS=${SHOTS:-10} VARIANT=$variant "$(dirname "${BASH_SOURCE[0]}")/coco_fsod.sh" ${rows[$variant]} "$@" || status=1
done
exit "$status"
