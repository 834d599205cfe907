#!/usr/bin/env bash
# The official OpenAI SDKs, unmodified, against a running `nemo standalone`. Called by `make sdk`.
#
#   tests/sdk/run.sh            Python and Node
#   tests/sdk/run.sh python     only one of them; further arguments go to its runner
#
# NEMO_BIN is the binary under test (the debug build by default); nemo-testenv is taken from beside it unless
# NEMO_TESTENV_BIN says otherwise. tools/test-env.sh installs what is needed here.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/.venv

suites=(python node)
case ${1:-} in
    python | node) suites=("$1"); shift ;;
    '') ;;
    *) echo "usage: $0 [python|node [argument...]]" >&2; exit 2 ;;
esac

die() { printf 'sdk: %s\n' "$*" >&2; exit 1; }

NEMO_BIN=$(realpath -m "${NEMO_BIN:-$root/target/debug/nemo}")
NEMO_TESTENV_BIN=$(realpath -m "${NEMO_TESTENV_BIN:-$(dirname "$NEMO_BIN")/nemo-testenv}")
export NEMO_BIN NEMO_TESTENV_BIN
[ -x "$NEMO_BIN" ] || die "$NEMO_BIN is missing; make it with: cargo build --workspace --bins"
[ -x "$NEMO_TESTENV_BIN" ] || die "$NEMO_TESTENV_BIN is missing; make it with: cargo build -p nemo-tests --bins"
[ -x "$venv/bin/python" ] || die "$venv is missing; make it with: tools/test-env.sh"
[ -d "$here/node/node_modules/openai" ] || die "the SDK for Node is missing; install it with: tools/test-env.sh"
# There only when the system's Node is too old or missing.
if [ -x "$venv/bin/node" ]; then node=$venv/bin/node; else node=node; fi

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
    limited "$node" --test --test-timeout=300000 --test-reporter=spec "$@" openai.test.mjs
}

# The lines in which a runner sums up.
closing_lines() {
    case $1 in
        python) tail -n 1 "$2" ;;
        node) grep -E '^ℹ (tests|pass|fail|cancelled|skipped|duration_ms) ' "$2" | tr '\n' ' ' ;;
    esac
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failed=()
summary=
for suite in "${suites[@]}"; do
    echo "== OpenAI SDK for $suite =="
    # A failure of one suite does not hide what the other has to say.
    if ! "run_$suite" "$@" 2>&1 | tee "$logs/$suite"; then failed+=("$suite"); fi
    summary+="$suite: $(closing_lines "$suite" "$logs/$suite" || echo "no summary")"$'\n'
done
printf '\n%s' "$summary"
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"
