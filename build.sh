#!/usr/bin/env bash
# Builds the images of the environment, all or the named ones, side by side, and shows how large they are and how long
# each took. First makes .env with random passwords where there is none. Afterwards: docker compose up -d --wait
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cd "$here"

usage() {
    cat <<'END'
usage: ./build.sh [--no-cache] [NAME...]

NAME is a service, such as nlp-runner or gateway, or a runner's folder, such as nlp. Without a name, all are built.
What can be chosen by variables, in the environment or in .env, is in docs/containers.md.
END
}

fail() {
    echo "$*" >&2
    exit 1
}

check_docker() {
    local said
    command -v docker >/dev/null || fail "Docker was not found; see https://docs.docker.com/get-docker/"
    docker compose version >/dev/null 2>&1 \
        || fail "Docker is here, Compose is not; install its plugin: https://docs.docker.com/compose/install/"
    said=$(docker version --format '{{.Server.Version}}' 2>&1) || fail "Docker's engine does not answer; start it \
(Docker Desktop, or sudo systemctl start docker), or get the right to use it (group docker). It said: $said"
    [ "${said%%.*}" -ge 25 ] 2>/dev/null \
        || fail "Docker Engine $said is too old: 25 or newer is needed, for health checks that look often while a container starts."
}

# What is there is never changed: the broker and the database keep the passwords that they were made with.
add_secret() {
    # However Compose reads it: with white space around it, with export, in quotes.
    local line="^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*="
    if grep -Eq "$line[[:space:]]*(\"\"|'')?[[:space:]]*$" .env; then
        fail "$1 is empty in .env; write a password there, or remove the line."
    fi
    if grep -Eq "$line" .env; then return; fi
    # A last line without an end would swallow this one.
    if [ -n "$(tail -c 1 .env)" ]; then echo >> .env; fi
    echo "$1=$(od -An -v -N24 -tx1 /dev/urandom | tr -d ' \n')" >> .env
    echo "wrote a random $1 into .env"
}

make_env() {
    [ -e .env ] || (umask 077 && : > .env)
    add_secret RABBITMQ_PASSWORD
    add_secret POSTGRES_PASSWORD
}

# The project's name, then each service that has an image of its own.
list_services() {
    docker compose ${files[@]+"${files[@]}"} "$@" config | awk '
        /^name:/ { print $2 }
        /^[a-z]/ { inside = ($1 == "services:") }
        inside && /^  [^ ]/ { sub(":", "", $1); service = $1 }
        inside && /^    build:/ { print service }'
}

# The services that the names mean, into `services`; the fragments of runners that are not in docker-compose.yml, into `files`.
find_services() {
    local known name
    known=$(list_services --profile '*')
    for name in "$@"; do
        if grep -Fqx -e "$name" <<< "$known"; then
            add_service "$name"
        elif grep -Fqx -e "$name-runner" <<< "$known"; then
            add_service "$name-runner"
        elif [ -n "$name" ] && [ -f "runners/${name%-runner}/compose.yml" ]; then
            add_service "${name%-runner}-runner" -f "runners/${name%-runner}/compose.yml"
        else
            fail "There is no service or runner called '$name'; there are: $(tail -n +2 <<< "$known" | tr '\n' ' ')"
        fi
    done
}

# Each once, with the Compose file that it needs: two builds of one would write the same log.
add_service() {
    local service=$1 known
    shift
    for known in ${services[@]+"${services[@]}"}; do
        if [ "$known" = "$service" ]; then return; fi
    done
    services+=("$service")
    files=(${files[@]+"${files[@]}"} "$@")
}

build_one() {
    local start=$SECONDS
    if BUILDKIT_PROGRESS=plain docker compose ${files[@]+"${files[@]}"} build ${options[@]+"${options[@]}"} "$1" \
        > "$logs/$1.log" 2>&1; then
        echo "$((SECONDS - start))" > "$logs/$1.seconds"
        echo "built $1 in $((SECONDS - start)) s"
    else
        echo "could not build $1; the end of what was said:"
        tail -n 25 "$logs/$1.log" | sed 's/^/    /'
        return 1
    fi
}

show_sizes() {
    local service bytes
    printf '\n%-36s %10s %8s\n' image MB seconds
    for service in "${services[@]}"; do
        bytes=$(docker image inspect --format '{{.Size}}' "$project-$service")
        printf '%-36s %10d %8s\n' "$project-$service" "$((bytes / 1000000))" "$(cat "$logs/$service.seconds")"
    done
}

options=() names=() services=() files=()
for word in "$@"; do
    case $word in
        --no-cache) options+=("$word") ;;
        -h | --help) usage && exit ;;
        -*) usage >&2 && exit 2 ;;
        *) names+=("$word") ;;
    esac
done
check_docker
make_env
find_services ${names[@]+"${names[@]}"}
# A name for the file that others stand beside.
[ "${#files[@]}" = 0 ] || files=(-f docker-compose.yml "${files[@]}")
project=$(list_services | head -n 1)
if [ "${#services[@]}" = 0 ]; then
    while read -r service; do services+=("$service"); done < <(list_services | tail -n +2)
fi

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# By one builder, which does what several have in common only once.
echo "building ${services[*]} ..."
builds=()
for service in "${services[@]}"; do
    build_one "$service" &
    builds+=($!)
done
failed=0
for build in "${builds[@]}"; do wait "$build" || failed=1; done
[ "$failed" = 0 ] || fail "Not everything was built; what was, is kept, so the next ./build.sh goes on from there."
show_sizes
echo
echo "Next: docker compose ${files[*]+${files[*]} }up -d --wait"
