#!/usr/bin/env bash
# Other people's clients, which the tests of the protocols use: redis-cli and redis-benchmark (from the system's packages),
# and Python's (in a virtual environment under target/clients). Does nothing where they are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v redis-cli >/dev/null || ! command -v redis-benchmark >/dev/null; then
    if ! command -v apt-get >/dev/null; then
        echo "redis-cli and redis-benchmark are needed for the tests: install the package redis-tools, or redis" >&2
        exit 1
    fi
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get install -y --no-install-recommends redis-tools ||
        { "${as_root[@]}" apt-get update && "${as_root[@]}" apt-get install -y --no-install-recommends redis-tools; }
fi

place=target/clients
wanted="redis==5.2.1"
if [ "$(cat "$place/wanted" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$place"
    python3 -m venv "$place"
    # shellcheck disable=SC2086 # several packages
    "$place/bin/pip" install --quiet --disable-pip-version-check $wanted
    echo "$wanted" >"$place/wanted"
fi
