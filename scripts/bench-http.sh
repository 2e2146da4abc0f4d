#!/usr/bin/env bash
# Decisions over HTTP and gRPC at 50 connections, side by side with throttlecrab if it is installed, on this machine. Of each
# server the processor time for a decision is shown beside the rate: of the two only that means something where other programs
# run.
#
#   LOADGEN=DIR [THROTTLECRAB=FILE] scripts/bench-http.sh [ROUNDS]     # default 5; medians over the rounds
#
# DIR has the binaries loadgen, grpcgen and echo of the load generator that the figures of README were measured with; FILE is
# `throttlecrab-server` (cargo install throttlecrab-server; it needs protoc). AQUIFER=FILE takes a binary instead of building
# one. One node of three that gossip is asked; everything is allowed. Loopback and a temporary directory only.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
: "${LOADGEN:?names the directory of loadgen, grpcgen and echo}"
throttlecrab=${THROTTLECRAB:-$(command -v throttlecrab-server || true)}
if [ -z "${AQUIFER:-}" ]; then
    cargo build --release --locked --quiet
    AQUIFER=${CARGO_TARGET_DIR:-target}/release/aquifer
fi
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT

join=
for node in a b c; do
    cat >"$dir/$node.toml" <<CONFIG
[listen]
grpc = "127.0.0.1:0"
[[pool]]
name = "api"
rps = { amount = 1_000_000, burst = 1_000_000 }
[[pool]]
name = "users"
keyed = true
rps = { amount = 1_000_000, burst = 1_000_000 }
[[rls]]
domain = "bench"
entries = [{ key = "key" }]
pool = "users"
key = "key"
CONFIG
    AQUIFER_JOIN=$join AQUIFER_GOSSIP=/ip4/127.0.0.1/tcp/0 "$AQUIFER" up --config "$dir/$node.toml" --name "$node" --no-mdns \
        --data-dir "$dir/$node" --socket "$dir/$node.sock" >"$dir/$node.log" 2>&1 &
    pids+=($!)
    [ "$node" != a ] || ours=$!
    until curl -sf --unix-socket "$dir/$node.sock" http://aquifer/readyz >/dev/null; do sleep 0.1; done
    [ -n "$join" ] || join=$("$AQUIFER" --socket "$dir/a.sock" token | sed 's/.* //')
done
grpc=$(sed -n 's/^grpc *//p' "$dir/a.log")
"$LOADGEN/echo" listen="uds:$dir/echo.sock" mode=epoll work=gcra >/dev/null &
floor=$!
pids+=("$floor")
ways=(floor ours-http ours-grpc)
if [ -n "$throttlecrab" ]; then
    "$throttlecrab" --http --http-host 127.0.0.1 --http-port 17200 --grpc --grpc-host 127.0.0.1 --grpc-port 17201 >/dev/null 2>&1 &
    theirs=$!
    pids+=("$theirs")
    ways=(floor throttlecrab-http ours-http throttlecrab-grpc ours-grpc)
fi
sleep 1

throttle="body={'key':'{key}','max_burst':1000000,'count_per_period':1000000,'period':1,'quantity':1}"
acquire="body={'pool':'api','ttl_ms':1000}"
http=(codec=http quote=single)
run() { # way
    case $1 in
    floor) "$LOADGEN/loadgen" target="uds:$dir/echo.sock" decide=1 codec=raw size=32 pid="$floor" conns=50 secs=2 ;;
    ours-http) "$LOADGEN/loadgen" target="uds:$dir/a.sock" path=/v1/acquire "${http[@]}" "$acquire" pid="$ours" conns=50 secs=2 ;;
    throttlecrab-http)
        "$LOADGEN/loadgen" target=tcp:127.0.0.1:17200 path=/throttle "${http[@]}" "$throttle" pid="$theirs" conns=50 secs=2
        ;;
    ours-grpc) "$LOADGEN/grpcgen" target="tcp:$grpc" api=rls pid="$ours" conns=50 secs=2 ;;
    throttlecrab-grpc) "$LOADGEN/grpcgen" target=tcp:127.0.0.1:17201 api=throttlecrab pid="$theirs" conns=50 secs=2 ;;
    esac
}
for round in $(seq "$rounds"); do
    for way in "${ways[@]}"; do
        echo "$way $(run "$way")" >>"$dir/results"
        printf '.' >&2
    done
done
echo >&2
python3 - "$dir/results" <<'PYTHON'
import json, statistics, sys
results = {}
for line in open(sys.argv[1]):
    way, report = line.split(" ", 1)
    results.setdefault(way, []).append(json.loads(report))
print("| way | decisions/s (least..most) | p50 us | processor us for one (least..most) | errors |")
print("| --- | ---: | ---: | ---: | ---: |")
for way, reports in results.items():
    of = lambda name: [report[name] for report in reports]
    rate, time = of("rate"), of("server_us_per_req")
    print(f"| {way} | {statistics.median(rate):,.0f} ({min(rate):,.0f}..{max(rate):,.0f}) | {statistics.median(of('p50_us')):.0f} "
          f"| {statistics.median(time):.1f} ({min(time):.1f}..{max(time):.1f}) | {sum(of('errors')) + sum(of('denied'))} |")
PYTHON
