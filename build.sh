#!/usr/bin/env bash
# Builds the images of the environment, all or the named ones, side by side, and shows how large they are and how long
# each took. Writes what is missing of the environment's secrets into secrets/. Afterwards: docker compose up -d --wait
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

# A variable as Compose finds it: in the environment, else in .env, however it is written there.
from_env() {
    local value
    value=$(docker compose -f - config <<< "{name: asked, services: {asked: {image: asked, environment: {ASKED: \"\${$1:-}\"}}}}" \
        | sed -n 's/^ *ASKED: //p')
    value=${value#[\"\']} value=${value%[\"\']}
    case $value in *[!A-Za-z0-9._~/:-]*) fail "$1 has characters that cannot be used here; take letters and digits." ;; esac
    printf '%s' "$value"
}

# The folder that Compose mounts secrets from. Nobody but its owner can look into it; the files themselves can be read by
# every user, because those of the containers have other numbers than the owner.
make_secrets_folder() {
    secrets=$(from_env SECRETS_FOLDER)
    if [ -z "$secrets" ]; then
        secrets=./secrets
        [ -e .env ] || (umask 077 && : > .env)
        # A last line without an end would swallow this one.
        if [ -n "$(tail -c 1 .env)" ]; then echo >> .env; fi
        echo "SECRETS_FOLDER=$secrets" >> .env
    fi
    mkdir -p "$secrets"
    chmod 700 "$secrets"
}

write_secret() {
    (umask 022 && printf '%s\n' "$2" > "$secrets/$1")
    written+=("$1")
}

# Whether a secret is missing, or older than what it is made from.
is_due() {
    local file=$secrets/$1 source
    shift
    [ -s "$file" ] || return 0
    for source in "$@"; do
        if [ "$secrets/$source" -nt "$file" ]; then return 0; fi
    done
    return 1
}

add_random_secret() {
    if is_due "$1"; then write_secret "$1" "$(od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n')"; fi
}

# Older versions had these passwords in .env; the volumes of the database and the broker have kept them.
add_password() {
    local former
    if ! is_due "$1"; then return; fi
    former=$(from_env "$2")
    if [ -n "$former" ]; then
        write_secret "$1" "$former"
        echo "took the password $2 over into $secrets/$1; nothing reads the variable any more, so remove it from .env"
    fi
    add_random_secret "$1"
}

# FILE SCHEME://USER PASSWORD_FILE WHERE
add_url() {
    if is_due "$1" "$3"; then write_secret "$1" "${2}:$(cat "$secrets/$3")@$4"; fi
}

make_secrets() {
    local name
    make_secrets_folder
    for name in admin-token runner-keys metrics-token; do add_random_secret "$name"; done
    add_password postgres-password POSTGRES_PASSWORD
    add_password rabbitmq-plugplay-password RABBITMQ_PASSWORD
    for name in controller gateway sender; do add_random_secret "rabbitmq-$name-password"; done
    add_url database-url postgresql://plugplay postgres-password postgres:5432/plugplay
    for name in controller gateway; do
        add_url "$name-queue-url" "amqp://$name" "rabbitmq-$name-password" rabbitmq:5672/
    done
}

# Secrets go in and out by pipes: command lines, variables and logs of a container are seen by others.
derive() {
    docker run --rm --interactive --pull never --network none --log-driver none "$project-runner-discovery" \
        python -I -c "$(cat deploy/derive_secrets.py)" "$@"
}

# The users of the broker, and a token for each runner.
derive_secrets() {
    local users="plugplay controller gateway sender" name file token names=() sources=() made
    for name in $users; do sources+=("rabbitmq-$name-password"); done
    for file in runners/*/Dockerfile; do
        name=$(basename "$(dirname "$file")")
        if [ -e "$file" ] && is_due "$name-runner-token" runner-keys; then names+=("$name"); fi
    done
    if [ "${#names[@]}" = 0 ] && ! is_due rabbitmq-definitions.json "${sources[@]}"; then return; fi
    # The image may be missing, or be of an older version.
    derive runner < "$secrets/runner-keys" >/dev/null 2>&1 || build_one runner-discovery
    if is_due rabbitmq-definitions.json "${sources[@]}"; then
        made=$(for name in $users; do echo "$name $(cat "$secrets/rabbitmq-$name-password")"; done | derive definitions)
        write_secret rabbitmq-definitions.json "$made"
    fi
    if [ "${#names[@]}" = 0 ]; then return; fi
    made=$(derive runner "${names[@]}" < "$secrets/runner-keys")
    while read -r name token; do write_secret "$name-runner-token" "$token"; done <<< "$made"
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
written=()
check_docker
make_secrets
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
derive_secrets
# Also those that were written by hand, for their owner alone.
chmod a+r "$secrets"/*
if [ "${#written[@]}" -gt 0 ]; then echo "wrote into $secrets: ${written[*]}"; fi
show_sizes
echo
echo "Next: docker compose ${files[*]+${files[*]} }up -d --wait"
