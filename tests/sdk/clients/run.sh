#!/usr/bin/env bash
# Clients of several makers, unmodified, against a running `nemo standalone`, with a model behind each dialect that the
# gateway speaks. Called by `make clients`.
#
#   tests/sdk/clients/run.sh            all of them
#   tests/sdk/clients/run.sh python     only one of python, node, rust; further arguments go to its runner
#
# NEMO_BIN is the binary under test (the debug build by default); nemo-testenv is taken from beside it unless
# NEMO_TESTENV_BIN says otherwise. tools/test-env.sh installs what is needed here.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
venv=$root/.venv-clients

suites=(python node rust)
case ${1:-} in
    python | node | rust) suites=("$1"); shift ;;
    '') ;;
    *) echo "usage: $0 [python|node|rust [argument...]]" >&2; exit 2 ;;
esac

die() { printf 'clients: %s\n' "$*" >&2; exit 1; }

NEMO_BIN=$(realpath -m "${NEMO_BIN:-$root/target/debug/nemo}")
NEMO_TESTENV_BIN=$(realpath -m "${NEMO_TESTENV_BIN:-$(dirname "$NEMO_BIN")/nemo-testenv}")
export NEMO_BIN NEMO_TESTENV_BIN
[ -x "$NEMO_BIN" ] || die "$NEMO_BIN is missing; make it with: cargo build --workspace --bins"
[ -x "$NEMO_TESTENV_BIN" ] || die "$NEMO_TESTENV_BIN is missing; make it with: cargo build -p nemo-tests --bins"
[ -x "$venv/bin/python" ] || die "$venv is missing; make it with: tools/test-env.sh"
[ -d "$here/node/node_modules/ai" ] || die "the clients for Node are missing; install them with: tools/test-env.sh"
# There only when the system's Node is too old or missing.
if [ -x "$root/.venv/bin/node" ]; then node=$root/.venv/bin/node; else node=node; fi

# A hang must not use up the time of all that comes after. In the foreground, so that ^C reaches everybody; what a runner
# has started ends with it.
limited() { timeout --verbose --foreground --signal=INT --kill-after=60 1200 "$@"; }

# Nothing stops at a failure in these: what calls them asks how they ended.
run_python() {
    cd "$here/python" || return 1
    PYTHONDONTWRITEBYTECODE=1 limited "$venv/bin/python" -m pytest "$@"
}

run_node() {
    cd "$here/node" || return 1
    limited "$node" --test --test-timeout=300000 --test-reporter=dot "$@" clients.test.mjs
}

# A program, which the Python side starts a gateway for.
run_rust() {
    cargo build --quiet --locked --manifest-path "$here/rust/Cargo.toml" --target-dir "$root/target/clients" || return 1
    cd "$here/python" || return 1
    NEMO_RUST_CLIENT=$root/target/clients/debug/nemo-client-tests PYTHONDONTWRITEBYTECODE=1 \
        limited "$venv/bin/python" -m pytest --quiet rust_client.py "$@"
}

failed=()
for suite in "${suites[@]}"; do
    echo "== clients: $suite =="
    # A failure of one suite does not hide what the others have to say.
    if ! ("run_$suite" "$@"); then failed+=("$suite"); fi
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"
