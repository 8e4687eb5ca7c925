#!/usr/bin/env bash
# CD-FSOD on all six data sets, with 1, 5 and 10 shots. See pipeline.sh for the variables.
set -euo pipefail
status=0
for dataset in ArTaxOr clipart1k DIOR FISH NEU-DET UODD; do
  "$(dirname "${BASH_SOURCE[0]}")/cdfsod.sh" "$dataset" "$@" || status=$?
done
exit "$status"
