#!/usr/bin/env bash
# The admin REST API against its own OpenAPI document, by generated requests. Called by `make api-test`.
#
#   tests/schemathesis/run.sh                 starts a PostgreSQL and a control plane, and stops them afterwards
#   tests/schemathesis/run.sh -n 100          further arguments go to schemathesis
#
# With NEMO_ADMIN_URL and NEMO_ADMIN_TOKEN in the environment the control plane there is tested instead; its content is
# changed at random. hooks.py fills it with something to work on; schemathesis.toml says what is checked.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/.venv

die() { printf 'schemathesis: %s\n' "$*" >&2; exit 1; }

if [ -z "${NEMO_ADMIN_URL:-}" ]; then
    testenv=$(realpath -m "${NEMO_TESTENV_BIN:-$root/target/debug/nemo-testenv}")
    [ -x "$testenv" ] || die "$testenv is missing; make it with: cargo build --workspace --bins"
    exec "$testenv" control-plane -- "$0" "$@"
fi
[ -x "$venv/bin/schemathesis" ] || die "$venv/bin/schemathesis is missing; install it with: tools/test-env.sh"

# What it keeps between runs goes elsewhere, so that each run is alike.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# Sets of strings have one order, so that the seed chooses the same.
export SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
"$venv/bin/schemathesis" --config-file "$here/schemathesis.toml" run "$NEMO_ADMIN_URL/admin/v1/openapi.json" "$@"
