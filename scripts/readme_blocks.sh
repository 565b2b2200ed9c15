#!/usr/bin/env bash
# Rewrites the blocks of output in README.md and docs/*.md: what lies between their `glmbench` marks.
#
#   scripts/readme_blocks.sh               the blocks that CI compares: modelled times, help, lists
#   scripts/readme_blocks.sh quickstart    the blocks with this word in their command, measured ones, too
#   scripts/readme_blocks.sh all           every block: needs a quiet machine, 13 GB of memory, some minutes
set -euo pipefail
cd "$(dirname "$0")/.."
GLMBENCH_README=${1:-compared} cargo test --release --test it readme::the_blocks -- --nocapture
git --no-pager diff --stat -- README.md docs
