#!/usr/bin/env bash
# Sets everything up on a machine that has only Python 3.11 or newer, starts the environment, sends sample tasks through
# the queue and shows the results. Runs until Ctrl-C; with --once it stops by itself; with --images it also starts the
# image runner, which brings 1 GB of torch, and shows pictures to it. --help tells the other options.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
bash "$here/.ci/set-up"
export RUNNERS_FOLDER="${RUNNERS_FOLDER:-$here/runners}" DATA_FOLDER="${DATA_FOLDER:-$here/.plugplay}"
exec "$here/.venv/bin/python" -P -m worker demo "$@"
