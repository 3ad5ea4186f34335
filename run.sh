#!/usr/bin/env bash
# Sets everything up on a machine that has only Python 3.11 or newer, starts the environment, sends sample tasks through
# the queue and shows the results. Runs until Ctrl-C; with --once it stops by itself; with --images it also starts the
# image runner, which brings 1 GB of torch, and shows pictures to it. --help tells the other options.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

usage() {
    cat <<'END'
usage: ./run.sh [--once] [--images] [--verbose] [--only NAME,...] [--scale NAME=N,...] [OPTION...]

Sets everything up, starts the environment, sends sample tasks through the queue, shows the results, and runs until Ctrl-C.

  --once     stop when the sample tasks are done
  --images   also the image runner, which brings 1 GB of torch, and pictures for it
  --verbose  the processes' informational lines, too
  --only     only these runners
  --scale    processes of runners; 0 starts none

All options, once it is set up: .venv/bin/worker demo --help
END
}

for word in "$@"; do
    case $word in -h | --help) usage && exit ;; esac
done
bash "$here/.ci/set-up"
export RUNNERS_FOLDER="${RUNNERS_FOLDER:-$here/runners}" DATA_FOLDER="${DATA_FOLDER:-$here/.plugplay}"
exec "$here/.venv/bin/python" -P -m worker demo "$@"
