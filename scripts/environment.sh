# shellcheck shell=bash
# Sourced by the scripts beside it: prepare_environment EXTRA puts a Python environment with this project and the
# dependencies of EXTRA into .venv of the repository, and sets $python to its interpreter.
#
# It costs nothing when there is nothing to do. What an interrupted call left half made is made again from scratch.

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 1
}

say() {
  printf '== %s\n' "$1"
}

# Sets $base to a Python that can make environments.
find_base_python() {
  local candidates=(python3 python3.13 python3.12 python3.11 python3.10) candidate known without_venv=""
  if [ -n "${LEZEA_PYTHON:-}" ]; then
    candidates=("$LEZEA_PYTHON")
  fi
  for candidate in "${candidates[@]}"; do
    known=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2] if sys.version_info >= (3, 10) else "")' \
      2>/dev/null) || continue
    [ -n "$known" ] || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      base=$candidate
      return
    fi
    without_venv=${without_venv:-$known}
  done
  if [ -n "$without_venv" ]; then
    fail "Python $without_venv is here, but without its modules venv and ensurepip. On Debian and Ubuntu: apt-get install python$without_venv-venv"
  fi
  fail "no Python 3.10 or newer found (tried: ${candidates[*]}). Install one, or name it: LEZEA_PYTHON=/path/to/python3 $0"
}

prepare_environment() {
  local extra=$1 environment=.venv base version stamp unfinished wanted
  python=$PWD/$environment/bin/python
  stamp=$environment/.installed-$extra
  unfinished=$environment.unfinished # beside it, so that it outlives the making of the environment

  # Two scripts at once would install over each other. Where there is no flock (macOS), the user takes care.
  exec 9>"$environment.lock"
  if command -v flock >/dev/null && ! flock -n 9; then
    say "another script prepares $environment; waiting for it"
    flock 9
  fi

  find_base_python
  version=$("$base" -c 'import platform; print(platform.python_implementation(), platform.python_version())')
  # The folder belongs to it, for an environment that was moved still points to its old place.
  wanted="$extra | $version | $PWD | $(cksum <pyproject.toml)"
  if [ ! -e "$unfinished" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$python" -c '' 2>/dev/null; then
    exec 9>&-
    return
  fi

  if [ -e "$unfinished" ] || [ "$(describe_environment)" != "$version" ]; then
    say "making $environment with $version"
    : >"$unfinished"
    "$base" -m venv --clear "$environment" || fail "the environment $PWD/$environment could not be made"
  fi
  say "installing this project and its dependencies for '$extra' (some minutes the first time)"
  : >"$unfinished"
  rm -f "$stamp"
  "$python" -m pip install --quiet --quiet --disable-pip-version-check --editable ".[$extra]" ||
    fail "the installation failed; the next call starts it again"
  printf '%s' "$wanted" >"$stamp"
  rm -f "$unfinished"
  exec 9>&-
}

# Prints implementation and version of the environment's Python, nothing if there is none that works with pip.
describe_environment() {
  "$python" -c 'import pip, platform; print(platform.python_implementation(), platform.python_version())' 2>/dev/null ||
    true
}
