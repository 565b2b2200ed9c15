#!/usr/bin/env bash
# Writes the README's blocks of output anew: what lies between its `glmbench` marks.
#
#   scripts/readme_blocks.sh               those that CI compares: modelled times, help, lists
#   scripts/readme_blocks.sh quickstart    those with this word in their command, measured ones, too
#   scripts/readme_blocks.sh all           every one: a quiet machine, 13 GB of memory, some minutes
set -euo pipefail
cd "$(dirname "$0")/.."
GLMBENCH_README=${1:-compared} cargo test --release --test it readme::the_blocks -- --nocapture
git --no-pager diff --stat -- README.md
