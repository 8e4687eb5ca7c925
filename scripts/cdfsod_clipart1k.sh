#!/usr/bin/env bash
# CD-FSOD on clipart1k, with 1, 5 and 10 shots. See pipeline.sh for the variables.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/cdfsod.sh" clipart1k "$@"
