"""Tests against a real daemon: `cargo test --test python` starts it, sets `AQUIFER_SOCKET` and `AQUIFER_PROGRAM`, and runs
these. Its pools are named in tests/python.rs."""
