#!/usr/bin/env bash
# CD-FSOD on NEU-DET, with 1, 5 and 10 shots. See pipeline.sh for the variables.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/cdfsod.sh" NEU-DET "$@"
