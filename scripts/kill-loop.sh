#!/usr/bin/env bash
# Kills nodes of a swarm of three real daemons under load with SIGKILL, as often as the argument says (1,000 unless it
# does), at random instants; checks that all their lives together never exceeded the limits, and prints how long a
# node took to answer and to admit again.
set -euo pipefail
cd "$(dirname "$0")/.."
AQUIFER_KILLS="${1:-1000}" cargo test --locked --release --test durable -- --exact --nocapture \
    kills_at_any_moment_under_load_never_exceed_the_limit
