#!/usr/bin/env bash
# Decisions over the Redis protocol, side by side with what Redis itself does, on this machine: redis-benchmark asks a node of
# three that gossip, and a Redis with a token bucket in Lua (and with redis-cell, if REDIS_CELL names its module).
#
#   scripts/bench.sh [ROUNDS]     # default 5; medians over the rounds, and ratios to Redis' own PING of the same rounds
#
# Needs redis-server, redis-cli and redis-benchmark (package redis); builds the release binary. Loopback and a temporary
# directory only.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
cargo build --release --locked --quiet
aquifer=${CARGO_TARGET_DIR:-target}/release/aquifer
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT

join=
for node in a b c; do
    cat >"$dir/$node.toml" <<CONFIG
[listen]
resp = "unix:$dir/$node.resp"
[[pool]]
name = "p"
rps = 1000
CONFIG
    AQUIFER_JOIN=$join AQUIFER_GOSSIP=/ip4/127.0.0.1/tcp/0 "$aquifer" up --config "$dir/$node.toml" --name "$node" --no-mdns \
        --data-dir "$dir/$node" --socket "$dir/$node.sock" >"$dir/$node.log" 2>&1 &
    pids+=($!)
    until [ -S "$dir/$node.resp" ] && curl -sf --unix-socket "$dir/$node.sock" http://aquifer/readyz >/dev/null; do sleep 0.1; done
    [ -n "$join" ] || join=$("$aquifer" --socket "$dir/a.sock" token | sed 's/.* //')
done
redis-server --port 0 --unixsocket "$dir/redis.sock" --save '' --appendonly no --loglevel warning \
    ${REDIS_CELL:+--loadmodule "$REDIS_CELL"} >"$dir/redis.log" 2>&1 &
pids+=($!)
until redis-cli -s "$dir/redis.sock" ping >/dev/null 2>&1; do sleep 0.1; done
# A token bucket: capacity and rate of a million, so that everything is allowed, as below.
lua="local t=redis.call('TIME') local now=t[1]*1000+t[2]/1000 local b=redis.call('HMGET',KEYS[1],'l','t') \
local l=tonumber(b[1]) or 1000000 local s=tonumber(b[2]) or now l=math.min(1000000,l+(now-s)*1000) \
if l<1 then return 0 end redis.call('HSET',KEYS[1],'l',l-1,'t',now) redis.call('PEXPIRE',KEYS[1],2000) return 1"
sha=$(redis-cli -s "$dir/redis.sock" script load "$lua")

# Requests a second, and the median of the latency in milliseconds.
measure() { # socket, clients, pipeline, command…
    local socket=$1 clients=$2 pipeline=$3 requests=60000
    shift 3
    [ "$clients" = 1 ] && requests=20000
    [ "$pipeline" = 1 ] || requests=600000
    redis-benchmark -s "$socket" -c "$clients" -P "$pipeline" -n "$requests" -r 1000 --csv "$@" 2>/dev/null |
        awk -F'","' 'NR == 2 { print $2, $5 }'
}

ways=(ping lua ours)
[ -z "${REDIS_CELL:-}" ] || ways=(ping lua cell ours)
run() { # way, clients, pipeline
    case $1 in
    ping) measure "$dir/redis.sock" "$2" "$3" ping ;;
    lua) measure "$dir/redis.sock" "$2" "$3" evalsha "$sha" 1 b:__rand_int__ ;;
    cell) measure "$dir/redis.sock" "$2" "$3" cl.throttle c:__rand_int__ 1000000 1000000 1 ;;
    ours) measure "$dir/a.resp" "$2" "$3" cl.throttle c:__rand_int__ 1000000 1000000 1 ;;
    esac
}

echo "| clients x pipelined | way | requests/s (least..most) | p50 ms | x Redis PING |"
echo "| --- | --- | ---: | ---: | ---: |"
for shape in "1 1" "50 1" "50 16"; do
    read -r clients pipeline <<<"$shape"
    : >"$dir/results"
    for round in $(seq "$rounds"); do
        for way in "${ways[@]}"; do
            echo "$round $way $(run "$way" "$clients" "$pipeline")" >>"$dir/results"
            printf '.' >&2
        done
    done
    python3 - "$dir/results" "$clients x $pipeline" <<'PYTHON'
import statistics, sys
rows = [line.split() for line in open(sys.argv[1]).read().splitlines()]
ping = {row[0]: float(row[2]) for row in rows if row[1] == "ping"}
names = {"ping": "Redis, PING", "lua": "Redis, token bucket in Lua", "cell": "Redis with redis-cell", "ours": "Aquifer, CL.THROTTLE"}
for way in dict.fromkeys(row[1] for row in rows):
    rates = [(row[0], float(row[2]), float(row[3])) for row in rows if row[1] == way]
    rate = [rate for _, rate, _ in rates]
    ratio = statistics.median(rate / ping[number] for number, rate, _ in rates)
    print(f"| {sys.argv[2]} | {names[way]} | {statistics.median(rate):,.0f} ({min(rate):,.0f}..{max(rate):,.0f}) "
          f"| {statistics.median(p50 for *_, p50 in rates):.3f} | {ratio:.2f} |")
PYTHON
done
echo >&2
