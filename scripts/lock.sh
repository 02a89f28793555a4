#!/bin/sh
# Makes requirements.lock anew: every package for every supported Python and
# system, pinned and hashed. Needs uv and the network; users need neither.
set -eu
cd "$(dirname "$0")/.."
uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --extra test "$@" \
  --custom-compile-command 'sh scripts/lock.sh' \
  --output-file requirements.lock pyproject.toml
