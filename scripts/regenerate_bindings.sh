#!/usr/bin/env bash
# Makes crates/ascend-sys/src/bindings.rs anew from include/acl_min.h. Needs libclang (Debian: apt install libclang-dev).
# With --check, compares instead of writing: that is the test `bindings` of the crate.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${1-} == --check ]]; then
    exec cargo test --release -p ascend-sys --features regen --test bindings
fi
cargo run --release -p ascend-sys --features regen --bin regenerate_bindings
