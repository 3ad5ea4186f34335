#!/usr/bin/env bash
# Sets everything up and runs what CI runs. --quick leaves out the tests that take minutes; other words go to pytest.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
bash "$here/.ci/set-up" dev
cd "$here"
bin="$here/.venv/bin"
pytest_options=()
if [ "${1:-}" = --quick ]; then
    pytest_options+=(-m "not slow")
    shift
fi

step() { printf '\n== %s\n' "$1"; }

step "ruff"
"$bin/ruff" check .
"$bin/ruff" format --check .
step "mypy"
"$bin/mypy"
step "import-linter"
"$bin/lint-imports"
step "tests"
# Most of their time is spent waiting, so there is one process more than there are cores.
# conftest.py says which tests share one.
processes=$("$bin/python" -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')
if ! "$bin/python" -m pytest --numprocesses "$processes" ${pytest_options[@]+"${pytest_options[@]}"} "$@"; then
    # Real servers are killed and frozen while other tests use both cores: what failed there may show that it passes alone.
    step "tests that failed, by themselves"
    "$bin/python" -m pytest --last-failed --last-failed-no-failures none ${pytest_options[@]+"${pytest_options[@]}"} "$@"
fi
step "tests of the runners"
# The image runner brings 1 GB of torch; who wants its tests says so: SCALE=meme-classifier=1 ./test.sh
SCALE="meme-classifier=0,${SCALE:-}" RUNNERS_FOLDER="$here/runners" DATA_FOLDER="$here/.plugplay" "$bin/python" -P -m worker test-runners
