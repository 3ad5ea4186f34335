#!/usr/bin/env bash
# Sets everything up and runs the checks and tests. --quick leaves out the tests that take minutes. --images adds those of
# the image runner (1 GB of torch; Tesseract), --containers those that build and run the images (a Docker engine), --full the
# longer forms of those that have one. Other words go to pytest.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

usage() {
    cat <<'END'
usage: ./test.sh [--quick] [--images] [--containers] [--full] [PYTEST-WORD...]

Sets everything up and runs the checks and tests of the project. Your own runners are not looked at: worker check NAME,
worker test-runners --only NAME.

  --quick       leave out the tests that take minutes
  --images      also those of the image runner (1 GB of torch; Tesseract)
  --containers  also those that build and run the images (a Docker engine)
  --full        then the longer forms of the tests that have one, one after the other (about an hour; they compare times, so
                nothing else should run)
END
}

for word in "$@"; do
    case $word in -h | --help) usage && exit ;; esac
done
bash "$here/.ci/set-up" dev
cd "$here"
bin="$here/.venv/bin"
pytest_options=()
chosen=""
images=0
containers=0
full=0
while true; do
    case "${1:-}" in
        --quick) chosen=" and not slow" ;;
        --images) images=1 ;;
        --containers) containers=1 ;;
        --full) full=1 ;;
        *) break ;;
    esac
    shift
done
pytest_options+=("$@")

step() { printf '\n== %s\n' "$1"; }

# Where the processes of tests write no bytecode, each compiles again all that it imports.
unset PYTHONDONTWRITEBYTECODE
run_tests() { "$bin/python" -m pytest "$@" ${pytest_options[@]+"${pytest_options[@]}"}; }

# What is chosen may be all of one kind: then pytest ends with 5 for the other.
some=0
run_some() {
    local code=0
    run_tests "$@" || code=$?
    case $code in 0) some=1 ;; 5) ;; *) exit "$code" ;; esac
}

# Runners that users have put beside ours are theirs.
our_runners=(text nlp meme-classifier)
ours=("${our_runners[@]/#/runners/}")
for entry in */ *.py; do
    [ "$entry" = runners/ ] || ours+=("$entry")
done

step "ruff"
"$bin/ruff" check "${ours[@]}"
"$bin/ruff" format --check "${ours[@]}"
step "mypy"
"$bin/mypy"
"$bin/mypy" --python-version 3.10 --package runnerlib  # runners may be older
step "import-linter"
"$bin/lint-imports"
step "the form of the packages"
"$bin/python" .ci/form.py
step "tests"
# Most of their time is spent waiting, so there is one process more than there are cores.
# conftest.py says which tests share one. Those that compare times are marked `serial`: what passes only alone runs alone.
run_some --numprocesses "$("$bin/python" -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')" -m "not serial$chosen"
step "tests that compare times, alone"
run_some --numprocesses 0 -m "serial$chosen"
[ "$some" = 1 ] || { echo "no test was chosen" >&2 && exit 5; }
step "tests of the runners"
SCALE="meme-classifier=$images,${SCALE:-}" RUNNERS_FOLDER="$here/runners" DATA_FOLDER="$here/.plugplay" \
    "$bin/python" -P -m worker test-runners "${our_runners[@]/#/--only=}"
if [ "$images$containers" != 00 ]; then
    step "tests with images, tests with containers, beside each other"
    IMAGE_TESTS=$images CONTAINER_TESTS=$containers run_tests --numprocesses 2 tests/images tests/containers
fi
if [ "$full" = 1 ]; then
    step "the longer forms"
    "$bin/python" -m pytest --full -m sized --numprocesses 0 ${pytest_options[@]+"${pytest_options[@]}"}
fi
