# shellcheck shell=bash
# Shared by the scripts of all benchmarks, which source it with their own arguments. Each script takes
#
#   --dry-run     print the commands without running them
#   other words   passed on to every stage, such as --model.init_args.data_load_cfgs.workers 8
#
# and these environment variables:
#
#   SHOTS         numbers of shots, such as "1 5 10"; default: those of the paper
#   SEED          seed of the reference set; default: 33, and 42 for COCO-20i and LVIS, as in the published results
#                 (COCO-FSOD also takes several: SEEDS="33 42")
#   GPUS          devices: a number, "0,2" or "auto", which is all in CUDA_VISIBLE_DEVICES, or the CPU if there is none;
#                 default: auto
#   CONFIG        configuration; default: the one of the benchmark
#   MODE          "paper", the default, or "best", which adds configs/best.yaml (docs/beyond_the_paper.md);
#                 fsod_vfm.sh sets "fsod_vfm"
#   VARIANT       a name for options that differ from the paper's, which the folder of the run gets (coco_ablations.sh)
#   RESULTS_DIR   folder of the runs, with one folder per run; default: runs
#   NTTT          how to call the command; default: no-time-to-train
#
# A run is RESULTS_DIR/DATASET/Nshot_seedS, with _best or _VARIANT at the end where these are given. Stages whose output exists are skipped,
# so the same command resumes an interrupted benchmark. If a run fails, the others still run.
set -euo pipefail

SEED=${SEED:-33}
GPUS=${GPUS:-auto}
MODE=${MODE:-paper}
RESULTS_DIR=${RESULTS_DIR:-runs}
read -ra nttt <<<"${NTTT:-no-time-to-train}"
# shellcheck disable=SC2034 # used by the scripts
configs=$(dirname "$(dirname "${BASH_SOURCE[0]}")")/configs
case $MODE in
  paper) suffix=${VARIANT:+_$VARIANT} mode_config=() ;;
  best | fsod_vfm) suffix=_$MODE${VARIANT:+_$VARIANT} mode_config=(--config "$configs/$MODE.yaml") ;;
  *)
    echo "error: MODE is $MODE: choose paper, best or fsod_vfm" >&2
    exit 2
    ;;
esac
dry_run=
overrides=()
failed=0

for word in "$@"; do
  if [[ $word == --dry-run ]]; then dry_run=yes; else overrides+=("$word"); fi
done

# run COMMAND...: run a command of no-time-to-train, or print it in a dry run.
run() {
  if [[ $dry_run ]]; then
    printf '%q ' "${nttt[@]}" "${@:1:$#-1}"
    printf '%q\n' "${*: -1}"
  else
    "${nttt[@]}" "$@"
  fi
}

# unless OUTPUT COMMAND...: run the command unless its output exists. Outputs are written atomically.
unless() {
  if [[ -e $1 ]]; then echo "already done: $1"; else run "${@:2}"; fi
}

# same_settings FOLDER SETTING...: refuse to resume a run that was started with other settings.
same_settings() {
  local file=$1/settings.txt settings
  settings=$(printf '%s\n' "${@:2}")
  if [[ -e $file && $(<"$file") != "$settings" ]]; then
    echo "error: $1 was started with other settings ($file): remove it, or choose another RESULTS_DIR" >&2
    return 2
  elif [[ ! $dry_run ]]; then
    mkdir -p "$1" && printf '%s\n' "$settings" >"$file"
  fi
}

# note_masks: say so where prepare cannot have made the masks with the network of the published results.
note_masks() {
  local checkpoint=checkpoints/sam_vit_h_4b8939.pth
  if [[ ! -e $checkpoint ]]; then
    echo "note: the published masks of references are made by SAM ViT-H; $checkpoint does not exist, so those of" \
      "'no-time-to-train prepare' may be made by SAM 2 (docs/datasets.md, Masks from boxes)"
  fi
}

# stages FOLDER SHOTS SEED REFERENCES... -- OPTION...: see pipeline.
stages() {
  local folder=$1 shots=$2 seed=$3 references=()
  shift 3
  if [[ ! -r $CONFIG ]]; then
    echo "error: CONFIG $CONFIG cannot be read" >&2
    return 2
  fi
  while [[ $1 != -- ]]; do
    if [[ $1 == @OUT ]]; then references+=("$folder/references.json"); else references+=("$1"); fi
    shift
  done
  shift
  local labels=(--n_shot "$shots" --seed "$seed") test=(test --config "$CONFIG" "${mode_config[@]}")
  test+=("$@" "${overrides[@]}" --trainer.logger.init_args.save_dir "$folder/logs")
  local mode=--model.init_args.test_mode
  local filling=(--model.init_args.dataset_cfgs.fill_memory.memory_pkl "$folder/references.json" --seed "$seed")
  # Of a set that the benchmark provides, all shots are used.
  if [[ ${references[0]} == sample ]]; then filling+=(--n_shot "$shots"); fi
  local filled=$folder/memory.ckpt memory=$folder/memory_postprocessed.ckpt
  local settings=("$(cksum <"$CONFIG")" "$shots" "$seed" "${references[*]}" "$*" "${overrides[*]}")
  if [[ $MODE != paper ]]; then settings+=("$MODE" "$(cksum <"$configs/$MODE.yaml")"); fi
  same_settings "$folder" "${settings[@]}" &&
    unless "$folder/references.json" "${references[@]}" &&
    unless "$filled" "${test[@]}" "$mode" fill_memory "${filling[@]}" --trainer.devices "$GPUS" \
      --out_path "$filled" &&
    unless "$memory" "${test[@]}" "$mode" postprocess_memory "${labels[@]}" --trainer.devices 1 \
      --ckpt_path "$filled" --out_path "$memory" &&
    unless "$folder/metrics.json" "${test[@]}" "$mode" test "${labels[@]}" --trainer.devices "$GPUS" \
      --ckpt_path "$memory" --export_result "$folder/results.json"
}

# pipeline DATASET SHOTS SEED REFERENCES... -- OPTION...: one run, from the reference set to the metrics.
# REFERENCES is the command that writes the reference set; its argument @OUT stands for the path to write. OPTIONs are
# passed to every stage.
pipeline() {
  echo "== $1, $2 shots, seed $3"
  stages "$RESULTS_DIR/$1/$2shot_seed$3$suffix" "${@:2}" --model.init_args.model_cfg.dataset_name "$1" ||
    failed=$((failed + 1))
}

# finish: write the report of all runs, and fail if a run has failed.
finish() {
  local status=0
  run report "$RESULTS_DIR" || status=1
  if ((failed)); then
    echo "error: $failed of the runs failed; the same command tries again" >&2
    status=1
  fi
  exit "$status"
}
