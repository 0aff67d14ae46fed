# Shared by the scripts beside this folder: where things lie, how a step is announced, how a failure is told.
# Sourced, never run. SUPERSONIC_CACHE moves the cache (models, peers) out of the checkout, so that several checkouts share one.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${SUPERSONIC_CACHE:-$root/.cache}
venv=$root/.venv
model=$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf
script=$(basename "$0")
started=$SECONDS

say() { printf '%s: [%3d s] %s\n' "$script" $((SECONDS - started)) "$*" >&2; }
die() { printf '%s: %s\n' "$script" "$*" >&2; exit 1; }

# Debian's own interpreter where there is one, so that every machine has the same.
python=${PYTHON:-}
[ -n "$python" ] || { [ -x /usr/bin/python3 ] && python=/usr/bin/python3 || python=python3; }

# How many compile jobs: SUPERSONIC_JOBS, else one a core, but never more than one per 1.5 GiB of memory.
jobs_here() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable/ {print int($2 / 1572864)}' /proc/meminfo)
  [ "${memory:-1}" -ge 1 ] || memory=1
  echo "${SUPERSONIC_JOBS:-$((cores < memory ? cores : memory))}"
}

# temporary_folder: sets $download to an empty folder that goes when the script ends.
temporary_folder() { download=$(mktemp -d); trap 'rm -rf "$download"' EXIT; }

# run_logged LOG COMMAND…: keeps the output in LOG and shows its end only where the command fails.
run_logged() {
  local log=$1; shift
  mkdir -p "$(dirname "$log")"
  "$@" >"$log" 2>&1 || { local code=$?; tail -n 40 "$log" >&2; say "failed ($code): $* (whole output: $log)"; return $code; }
}

# make_venv DIR: a virtual environment with pip.
make_venv() {
  [ -x "$1/bin/pip" ] && "$1/bin/python" -c '' 2>/dev/null && return
  rm -rf "$1"
  "$python" -m venv "$1" || die "cannot make a Python environment in $1: is Debian's package python3-venv there?"
}

# pip_install DIR STAMP ARGUMENTS…: pip install once for these arguments and the files that they name.
pip_install() {
  local dir=$1 stamp=$1/.installed-$2 key; shift 2
  key=$( { printf '%s\n' "$@"; "$dir/bin/python" --version
           for word in "$@"; do if [ -f "$word" ]; then cat "$word"; fi; done; } | sha256sum)
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] && return
  run_logged "$dir/pip.log" "$dir/bin/pip" install --disable-pip-version-check "$@" \
    || die "pip could not install its packages (is a package index reachable?)"
  echo "$key" >"$stamp"
}
