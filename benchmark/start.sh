#!/usr/bin/env bash
# Launch the last configuration again. Every flag of `python -m benchmark launch` overrules what it says.
#   BATCH_SIZE     another batch size
#   NOINSTALL      True: install nothing first
#   OUTPUT_DIR     where the last configuration and the logs are (default: build/benchmark in the repository)
#   CONFIGURATION  the file with the configuration (default: last.json of OUTPUT_DIR)
#   DOCKER_IMAGE   another image; empty: none
#   PYTHON         the interpreter (default: that of .venv in the repository, else python3)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
configuration=${CONFIGURATION:-${OUTPUT_DIR:-$root/build/benchmark}/last.json}
python=${PYTHON:-$root/.venv/bin/python}
command -v "$python" >/dev/null || python=python3

pip() { "$python" -m pip --disable-pip-version-check "$@"; }
case ${NOINSTALL:-False} in
  [Tt]rue | 1) ;;
  *) pip install --quiet -r "$here/requirements.txt" -c <(pip list --format=freeze) >&2 ;; # the engine keeps what it has
esac

exec "$python" "$here/launch_benchmark.py" --configuration "$configuration" \
  ${BATCH_SIZE:+--batch-size "$BATCH_SIZE"} ${DOCKER_IMAGE+--docker-image "$DOCKER_IMAGE"} "$@"
