#!/bin/sh
# Makes .venv from requirements.lock, or leaves at once when it is there.
#
# PYTHON names the interpreter; without it the first suitable one is taken.
# .venv/complete is written last and holds the lock's checksum: a .venv without
# it is the rest of an interrupted install and is made anew.
set -eu
cd "$(dirname "$0")/.."

fail() {
  printf '%s\n' "$1" >&2
  exit 1
}

# [3.11, 3.14) are the versions that the tests run on.
supported() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
    >/dev/null 2>&1
}

has_venv() {
  "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    candidates=$PYTHON
  else
    candidates='python3 python3.13 python3.12 python3.11'
  fi
  without_venv=
  for candidate in $candidates; do
    if supported "$candidate"; then
      if has_venv "$candidate"; then
        python=$candidate
        return
      fi
      without_venv=${without_venv:-$candidate}
    fi
  done
  if [ -n "$without_venv" ]; then
    fail "$without_venv has no venv module: install it (on Debian and Ubuntu: \
sudo apt install $without_venv-venv) and type the same command again."
  fi
  first=${PYTHON:-python3}
  version=$("$first" -c \
    'import platform; print(platform.python_version())' 2>/dev/null) \
    && found="$first is $version" || found="$first was not found"
  fail "dl_lectures needs Python 3.11, 3.12 or 3.13, and $found: install one \
and name it, for example: make PYTHON=python3.12 run"
}

# Of the same 3.x as PYTHON, if that was given.
as_asked() {
  [ -z "${PYTHON:-}" ] ||
    [ "$(minor_version "$PYTHON")" = "$(minor_version .venv/bin/python)" ]
}

minor_version() {
  "$1" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null
}

checksum=$(cksum <requirements.lock)
if [ -f .venv/complete ] && .venv/bin/python -c '' 2>/dev/null && as_asked; then
  [ "$(cat .venv/complete)" = "$checksum" ] && exit 0
  echo 'requirements.lock has changed: bringing .venv up to date.'
  rm .venv/complete
else
  find_python
  echo "Making .venv with $("$python" --version) (once; a few minutes)."
  rm -rf .venv
  "$python" -m venv .venv
fi

# setuptools, itself from the lock, builds what comes as source: pip and uv
# would otherwise fetch one that nothing pins.
build_lock=.venv/build-requirements.lock
awk '/^[a-z]/ { wanted = /^setuptools==/ } wanted' requirements.lock \
  >"$build_lock"

uv_install() {
  uv pip install --python .venv/bin/python --require-hashes "$@"
}

with_uv() {
  uv --version >/dev/null 2>&1 &&
    uv_install --quiet -r "$build_lock" &&
    uv_install --no-build-isolation -r requirements.lock
}

pip_install() {
  .venv/bin/python -m pip install --disable-pip-version-check --no-input "$@"
}

# Of pip's several hundred lines only the downloads are of interest.
with_pip() {
  rm -f .venv/installed
  pip_install --quiet --require-hashes -r "$build_lock" && {
    pip_install --require-hashes --no-build-isolation --use-pep517 \
      -r requirements.lock && touch .venv/installed
  } | sed -n 's/^ *Downloading /  downloading /p'
  [ -f .venv/installed ]
}

with_uv || with_pip || fail 'The packages were not installed (see above): \
type the same command again to try once more.'
pip_install --quiet --no-deps --no-build-isolation --editable .
printf '%s\n' "$checksum" >.venv/complete
