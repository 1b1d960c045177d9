#!/usr/bin/env bash
# environment.sh COMMAND [ARGUMENT...]: runs COMMAND in the repository's root with the locked environment (.venv) first on PATH.
#
# What is missing is installed first, and said: a Python of 3.11 or newer and its venv module by apt where this is root on
# Debian or Ubuntu, likewise g++, uv from PyPI, the locked packages by uv; the engine's native operations are compiled.
# When nothing is missing this costs some milliseconds and is silent: a stamp in the cache holds the checksum of what
# .venv was made from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv_floor=0.13.0 # the version that wrote uv.lock
cache=${XDG_CACHE_HOME:-$HOME/.cache}/aixcoder
tools=$cache/tools
export UV_CACHE_DIR=${UV_CACHE_DIR:-$cache/uv}
export UV_PYTHON_DOWNLOADS=never UV_PYTHON_PREFERENCE=only-system

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "error: $*"
  exit 1
}

can_apt() { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }

apt_install() {
  say "environment: installing $* with apt"
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 update >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" >/dev/null
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local name
  for name in python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3; do
    if command -v "$name" >/dev/null && new_enough "$name"; then
      command -v "$name"
      return
    fi
  done
  return 1
}

ensure_python() {
  if ! python=$(find_python); then
    if can_apt; then apt_install python3 python3-venv; fi
    python=$(find_python) || fail "no Python 3.11 or newer on this machine: install one (for example the packages python3 and python3-venv), then run this again"
  fi
}

# Whether $1 runs and is no older than the floor.
usable_uv() {
  local version
  version=$("$1" --version 2>/dev/null | cut -d' ' -f2) || return 1
  [ -n "$version" ] && [ "$(printf '%s\n' "$uv_floor" "$version" | sort -V | head -n 1)" = "$uv_floor" ]
}

# The uv that was chosen is on PATH for every later command, before any other one.
link_uv() {
  mkdir -p "$tools/bin"
  ln -sf "$1" "$tools/bin/uv"
}

ensure_uv() {
  local candidate
  if [ -x "$tools/bin/uv" ] && usable_uv "$tools/bin/uv"; then return; fi
  for candidate in uv "$tools/venv/bin/uv" "$tools/target/bin/uv"; do
    if command -v "$candidate" >/dev/null && usable_uv "$candidate"; then
      link_uv "$(command -v "$candidate")"
      return
    fi
  done
  say "environment: installing uv from PyPI into $tools"
  mkdir -p "$tools"
  local log=$tools/uv-install.log
  if ! "$python" -m venv --clear "$tools/venv" >"$log" 2>&1 && can_apt; then
    apt_install python3-venv
    "$python" -m venv --clear "$tools/venv" >>"$log" 2>&1 || true
  fi
  if "$tools/venv/bin/python" -m pip install --quiet "uv>=$uv_floor" >>"$log" 2>&1; then
    link_uv "$tools/venv/bin/uv"
  elif "$python" -m pip install --quiet --upgrade --target "$tools/target" "uv>=$uv_floor" >>"$log" 2>&1; then
    link_uv "$tools/target/bin/uv" # a Python with pip and without venv; --target asks nothing of a managed system
  else
    tail -n 5 "$log" >&2
    fail "uv $uv_floor or newer could not be installed from PyPI ($log): install it by hand and have it on PATH, then run this again"
  fi
}

compiler=${CXX:-g++}

# Without one the engine computes by torch, which is slower and no error.
ensure_compiler() {
  if command -v "$compiler" >/dev/null; then return; fi
  if can_apt && [ "$compiler" = g++ ] && apt_install g++; then return; fi
  say "environment: no $compiler on this machine: the engine's native operations are left out, generation on processors is slower"
}

native=serving/aixcoder_serving/engine/cpu

# Of what .venv and the native operations are made from, of the compiler and of which libraries there are.
checksum() {
  {
    cat uv.lock pyproject.toml hatch_build.py "$native"/{build.py,*.cpp,*.h}
    ls "$native"/*.so || true
    command -v "$compiler" || true
  } 2>/dev/null | sha256sum | cut -d' ' -f1
}

# What the tools keep for this checkout, outside it.
kept=$cache/checkouts/$(printf '%s' "$PWD" | sha256sum | cut -c1-16)
export MYPY_CACHE_DIR=$kept/mypy RUFF_CACHE_DIR=$kept/ruff HYPOTHESIS_STORAGE_DIRECTORY=$kept/hypothesis
export PYTEST_ADDOPTS="-o cache_dir=$kept/pytest ${PYTEST_ADDOPTS:-}"

stamp=$kept/environment
wanted=$(checksum)
if ! { [ -x .venv/bin/python ] && [ -x "$tools/bin/uv" ] && new_enough .venv/bin/python && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; }; then
  started=$SECONDS
  [ "$(uname -s)" = Linux ] || say "environment: this is $(uname -s): lint and unit tests run here, the local cluster needs Linux"
  ensure_python
  ensure_uv
  ensure_compiler
  say "environment: syncing .venv with uv.lock (6 GB the first time on a machine)"
  # Reinstalled: uv would take the package as it was built last, whether or not the libraries are still there.
  "$tools/bin/uv" sync --quiet --locked --all-extras --all-groups --reinstall-package aixcoder || fail "uv sync failed: where uv.lock is out of date, run 'uv lock' and commit it"
  mkdir -p "$kept"
  checksum >"$stamp"
  say "environment: ready after $((SECONDS - started)) s"
fi

export PATH=$PWD/.venv/bin:$tools/bin:$PATH VIRTUAL_ENV=$PWD/.venv
[ $# -gt 0 ] || exit 0
exec "$@"
