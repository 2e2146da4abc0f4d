#!/usr/bin/env bash
# Everything that must pass before a change lands. CI runs this and nothing else. Needs a Rust toolchain, a C compiler (for
# ring, below Noise) and Python 3 with PyPI (a foreign client for tests/grpc.rs); installs cargo-deny under target/tools when
# it is not there.
#
# Packages are tested one by one: with --workspace the simulations would be linked to a core that was built with the
# daemon, and could come to use it unseen.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --all --check

step "the core alone, and the simulations on it: no Tokio, no libp2p"
cargo build --locked --lib --no-default-features
for package in "aquifer --no-default-features" aquifer-simulations; do
    # shellcheck disable=SC2086 # a package and its option
    tree=$(cargo tree --locked --edges normal --prefix none -p $package)
    if grep -E '^(tokio|libp2p|hyper)\b' <<<"$tree"; then
        echo "$package depends on IO" >&2
        exit 1
    fi
done

step "the client alone: no libp2p, no hyper"
cargo build --locked --lib --no-default-features --features tower
if cargo tree --locked --edges normal --prefix none -p aquifer --no-default-features --features tower | grep -E '^(libp2p|hyper)\b'; then
    echo "the client depends on the daemon's libraries" >&2
    exit 1
fi

step "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

step "other people's clients, for the tests"
scripts/clients.sh

step "tests"
cargo test --locked

step "tests of the simulations, among them that they do what real daemons do"
cargo test --locked -p aquifer-simulations

step "the simulations: a fixed set"
scripts/simulations.sh

step "a short demo of both acts: five real nodes, and the provider refuses nothing"
"${CARGO_TARGET_DIR:-target}/debug/aquifer" demo --headless --seconds 4 --svg "${CARGO_TARGET_DIR:-target}/demo.svg"

step "dependencies: bans, licences, sources, advisories"
deny=$(command -v cargo-deny || echo target/tools/bin/cargo-deny)
if [ ! -x "$deny" ]; then
    cargo install --locked cargo-deny --version 0.20.2 --root target/tools --target-dir target/tools/build
fi
"$deny" --workspace --all-features check bans licenses sources
# The advisory database is a git repository of its own. Where it cannot be reached (no network, no copy under
# $CARGO_HOME/advisory-dbs) this one check is left out, loudly; tests/dependencies.rs still holds the minimum safe
# versions of what parses network bytes.
if "$deny" fetch db >/dev/null 2>&1 || ls "${CARGO_HOME:-$HOME/.cargo}"/advisory-dbs/*/crates >/dev/null 2>&1; then
    "$deny" --workspace --all-features check --disable-fetch advisories
else
    echo "NOT CHECKED: the advisory database cannot be reached"
fi

step "all passed"
