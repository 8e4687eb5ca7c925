#!/usr/bin/env bash
# CD-FSOD on ArTaxOr, with 1, 5 and 10 shots. See pipeline.sh for the variables.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/cdfsod.sh" ArTaxOr "$@"
