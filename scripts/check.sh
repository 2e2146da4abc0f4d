#!/usr/bin/env bash
# Everything that must pass before a change lands. CI runs this and nothing else. Needs a Rust toolchain and a C compiler
# (for ring, below Noise); installs cargo-deny under target/tools when it is not there.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "format"
cargo fmt --check

step "the core alone: no Tokio, no libp2p"
cargo build --locked --lib --no-default-features
if cargo tree --locked --no-default-features --edges normal --prefix none | grep -E '^(tokio|libp2p|hyper)\b'; then
    echo "the core depends on IO" >&2
    exit 1
fi

step "lints"
cargo clippy --locked --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

step "tests"
cargo test --locked

step "a short demo: five real nodes, and the provider refuses nothing"
target/debug/aquifer demo --headless --seconds 4 --svg target/demo.svg

step "dependencies: bans, licences, sources, advisories"
deny=$(command -v cargo-deny || echo target/tools/bin/cargo-deny)
if [ ! -x "$deny" ]; then
    cargo install --locked cargo-deny --version 0.20.2 --root target/tools --target-dir target/tools/build
fi
"$deny" --all-features check bans licenses sources
# The advisory database is a git repository of its own. Where it cannot be reached (no network, no copy under
# $CARGO_HOME/advisory-dbs) this one check is left out, loudly; tests/dependencies.rs still holds the minimum safe
# versions of what parses network bytes.
if "$deny" fetch db >/dev/null 2>&1 || ls "${CARGO_HOME:-$HOME/.cargo}"/advisory-dbs/*/crates >/dev/null 2>&1; then
    "$deny" --all-features check --disable-fetch advisories
else
    echo "NOT CHECKED: the advisory database cannot be reached"
fi

step "all passed"
