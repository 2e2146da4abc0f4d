#!/usr/bin/env bash
# Hunts for faults with fresh seeds until stopped, or for so many minutes: scripts/soak.sh [--minutes M]
# The first line is the starting seed. When something is violated, the last line is the command that shows it again,
# and the exit status is 1.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=()
case "${1:-}" in
    "") ;;
    --minutes) minutes=(--minutes "${2:?--minutes needs a number}") ;;
    *) echo "usage: scripts/soak.sh [--minutes M]" >&2; exit 2 ;;
esac

cargo build --locked --release --quiet -p aquifer-simulations
# Seeds that no soak before this one is likely to have run: 48 random bits, so that they stay short enough to be told.
from=$(od -An -N6 -tu8 /dev/urandom | tr -d ' ')
exec "${CARGO_TARGET_DIR:-target}/release/aquifer-simulations" swarm --from "$from" "${minutes[@]}"
