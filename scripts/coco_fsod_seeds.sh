#!/usr/bin/env bash
# Figure 4: COCO-FSOD with 6 numbers of shots and 10 seeds (SHOTS and SEEDS). The report writes means and standard
# deviations to RESULTS_DIR/report_coco_fsod.csv, and a plot with the published curve to report_coco_fsod.png. See
# pipeline.sh for the variables.
set -euo pipefail
SHOTS=${SHOTS:-1 2 3 5 10 30} SEEDS=${SEEDS:-42 13 27 36 88 33 69 55 77 99} \
  exec "$(dirname "${BASH_SOURCE[0]}")/coco_fsod.sh" "$@"
