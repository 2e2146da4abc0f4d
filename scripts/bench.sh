#!/usr/bin/env bash
# Decisions a second, latency and processor time for each, side by side with what people use, in one run on this machine:
#
#   scripts/bench.sh [--realtime] [ROUNDS [TEXT]]    # 5 rounds unless said; TEXT picks measurements by their titles
#
# Measured is one node of three that gossip, while a pool that has too little for all is asked for at each of them, beside a bare
# epoll socket that sends back 32 bytes, Redis (PING, a token bucket in Lua, the module redis-cell) and throttlecrab. What is
# measured how, and the goals, are in benches/load/plan.toml. Medians over the rounds; ratios are taken within a round.
#
# --realtime runs servers and generator with a real-time priority (root only), so that other work on the machine does not
# disturb them. Do not compare figures of runs with it and without.
#
# Builds what is measured: the release binary, benches/load, and the peers, which come from crates.io under target/peers; one
# that cannot be had is left out, and the tables say so. limitador's server is on no registry: the goals against it are ratios
# to the bare socket that were measured elsewhere. Needs two cores, curl, a C compiler, protoc (for
# throttlecrab), and redis-server and redis-cli (package redis) unless Redis is to be left out. Loopback, its ports 17201 to
# 17204, and a temporary directory only.
set -euo pipefail
cd "$(dirname "$0")/.."
realtime=
if [ "${1:-}" = --realtime ]; then
    realtime=yes
    shift
fi
target=${CARGO_TARGET_DIR:-target}
peers=$PWD/target/peers

cargo build --release --locked --quiet
cargo build --release --locked --quiet --manifest-path benches/load/Cargo.toml --target-dir "$target/load"
aquifer=$target/release/aquifer
load=$target/load/release/aquifer-load

throttlecrab=$peers/bin/throttlecrab-server
[ -x "$throttlecrab" ] ||
    cargo install --locked --quiet throttlecrab-server --version 0.4.40 --root "$peers" --target-dir "$peers/build" ||
    echo "throttlecrab cannot be built" >&2
cell=$peers/build/release/libredis_cell.so
build_cell() { # a module, no program: `cargo install` has no use for it
    local name=redis-cell-0.2.2 checksum=9a7fc93a6257cff317af736529c8462842b9ef7cce23acb20b6b454014ebec3d
    mkdir -p "$peers"
    curl -sfL "https://static.crates.io/crates/redis-cell/$name.crate" -o "$peers/$name.crate" &&
        echo "$checksum  $peers/$name.crate" | sha256sum --check --quiet &&
        tar xzf "$peers/$name.crate" -C "$peers" &&
        echo '[workspace]' >>"$peers/$name/Cargo.toml" &&
        RUSTFLAGS='--cap-lints allow' cargo build --release --quiet --manifest-path "$peers/$name/Cargo.toml" --target-dir "$peers/build"
}
[ -f "$cell" ] || build_cell || echo "redis-cell cannot be built" >&2

dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
[ -z "$realtime" ] || chrt -f -p 10 $$

start() { # name, command…
    local name=$1
    shift
    "$@" >"$dir/$name.log" 2>&1 &
    pids+=($!)
    echo $! >"$dir/$name.pid"
}
# So that what cannot start is left out, and does not hang the run.
await() { # command…
    for _ in $(seq 100); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    echo "gave up waiting for: $*" >&2
    return 1
}

start echo "$load" echo "$dir/echo.sock"
join=
for node in a b c; do
    cat >"$dir/$node.toml" <<CONFIG
[listen]
resp = "unix:$dir/$node.resp"
$([ $node != a ] || echo 'grpc = "127.0.0.1:17201"')
[[pool]]
name = "contended"
rps = 100
[[pool]]
name = "each"
keyed = true
rps = 1_000_000
[[rls]]
domain = "load"
entries = [{ key = "key" }]
pool = "each"
key = "key"
CONFIG
    AQUIFER_JOIN=$join AQUIFER_GOSSIP=/ip4/127.0.0.1/tcp/0 start $node "$aquifer" up --config "$dir/$node.toml" --name $node \
        --no-mdns --data-dir "$dir/$node" --socket "$dir/$node.sock"
    await curl -sf --unix-socket "$dir/$node.sock" http://aquifer/readyz || { cat "$dir/$node.log" >&2; exit 1; }
    [ -n "$join" ] || join=$("$aquifer" --socket "$dir/a.sock" token | sed 's/.* //')
done
lua=
redis=(redis-server --port 0 --save '' --appendonly no --loglevel warning)
if command -v redis-server >/dev/null; then
    start redis "${redis[@]}" --unixsocket "$dir/redis.sock"
    if await redis-cli -s "$dir/redis.sock" ping; then
        lua=$(redis-cli -s "$dir/redis.sock" script load "$(cat benches/load/token_bucket.lua)")
    fi
    # A Redis of its own: what a server does with one module should not be charged to the one without.
    [ ! -f "$cell" ] || start cell "${redis[@]}" --unixsocket "$dir/cell.sock" --loadmodule "$cell"
fi
if [ -x "$throttlecrab" ]; then
    start throttlecrab "$throttlecrab" --redis --redis-host 127.0.0.1 --redis-port 17202 --http --http-host 127.0.0.1 \
        --http-port 17203 --grpc --grpc-host 127.0.0.1 --grpc-port 17204 --log-level error
    await curl -s http://127.0.0.1:17203/ || true
fi

sed -e "s|@dir@|$dir|" -e "s|@lua@|$lua|" benches/load/plan.toml >"$dir/plan.toml"
start background "$load" background "$dir/plan.toml"
background=$!
sleep 2 # until the nodes have heard of one another, and leases run
"$load" compare "$dir/plan.toml" "${1:-5}" "${2:-}"
kill -0 $background 2>/dev/null || { echo "nothing was contended: $(cat "$dir/background.log")" >&2; exit 1; }
