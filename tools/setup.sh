#!/bin/sh
# Installs what building and running Nemo Router needs and this machine lacks. Called by `make run` and `make test`.
#
#   tools/setup.sh          for building and running
#   tools/setup.sh test     also for the tests
#   tools/setup.sh dist     also for what is shipped (tools/dist.sh), where the system has it
#   tools/setup.sh --check  only say what is missing; exit code 1 when something is
#
# Packages come from apt, as root or through sudo when that asks for no password. Otherwise it prints the command and
# stops. What is there already is left alone, whoever installed it. A Rust toolchain is never installed from here.
set -eu

OLDEST_POSTGRES=15
tests=false
dist=false
check_only=false
for argument in "$@"; do
    case $argument in
        test) tests=true ;;
        dist) dist=true ;;
        --check) check_only=true ;;
        *) echo "usage: $0 [test] [dist] [--check]" >&2; exit 2 ;;
    esac
done

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# True when a directory holds a usable PostgreSQL.
usable_postgres() {
    [ -x "$1/postgres" ] && [ -x "$1/initdb" ] || return 1
    major=$("$1/postgres" --version 2>/dev/null | sed -n 's/^[^0-9]*\([0-9][0-9]*\).*/\1/p')
    [ "${major:-0}" -ge "$OLDEST_POSTGRES" ]
}

# The places where `nemo standalone` looks, in its order.
have_postgres() {
    if [ -n "${NEMO_PG_BIN:-}" ]; then
        usable_postgres "$NEMO_PG_BIN" && return 0
        say "NEMO_PG_BIN is $NEMO_PG_BIN, which has no PostgreSQL $OLDEST_POSTGRES or newer in it"
        exit 1
    fi
    if have postgres && usable_postgres "$(dirname "$(readlink -f "$(command -v postgres)")")"; then return 0; fi
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
        if usable_postgres "$dir"; then return 0; fi
    done
    return 1
}

if ! have cargo; then
    say "there is no Rust toolchain; https://rustup.rs installs one:"
    say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    exit 1
fi

missing=
need() { # command, package
    have "$1" || missing="$missing $2"
}
need cc build-essential
need setpriv util-linux
need curl curl
# An external database needs no local one.
if [ -z "${NEMO_POSTGRES_URL:-}" ] || $tests; then
    have_postgres || missing="$missing postgresql"
fi
if $tests; then
    # Replicas of the control plane meet there; NEMO_ETCD_BIN names one that is not on the PATH.
    if [ -n "${NEMO_ETCD_BIN:-}" ]; then
        have "$NEMO_ETCD_BIN" || { say "NEMO_ETCD_BIN is $NEMO_ETCD_BIN, which can't be run"; exit 1; }
    else
        need etcd etcd-server
    fi
    # Node is not in this list: tools/test-env.sh gets one, since that of most releases is too old.
    need git git
    need python3 python3
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
    if have python3 && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        missing="$missing python3-venv"
    fi
    have python3 || missing="$missing python3-venv"
fi
if $dist; then
    llvm=$(rustc -vV | sed -n 's/^LLVM version: *\([0-9]*\).*/\1/p')
    tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: *//p')/bin
    # Not every release of the system has the compiler's version: without it there is no profile, which is no fault.
    if ! have "$tools/llvm-profdata" && ! have "llvm-profdata-$llvm" &&
        apt-cache policy "llvm-$llvm" 2>/dev/null | grep -q 'Candidate: *[0-9]'; then
        missing="$missing llvm-$llvm"
    fi
fi
missing=${missing# }

[ -n "$missing" ] || exit 0
if $check_only; then
    say "missing: $missing"
    exit 1
fi

stop_with_command() {
    say "$1. Missing: $missing"
    say "install them with:  sudo apt-get install $missing"
    say "(or give a PostgreSQL of your own: NEMO_PG_BIN=/path/to/bin, or --postgres-url)"
    exit 1
}

have apt-get || {
    say "missing: $missing (names of Debian packages)"
    say "this machine has no apt; install them with its own package manager, then try again"
    exit 1
}
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif have sudo && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    stop_with_command "installing needs root, and sudo would ask for a password"
fi

say "installing: $missing"
no_cluster=
no_services=
# shellcheck disable=SC2086 # empty for root, and two words for sudo
clean_up() {
    for file in $no_cluster $no_services; do $as_root rm -f "$file"; done
}
trap clean_up EXIT
trap 'exit 1' INT TERM
# Waits for another that installs something, and asks a mirror that fails again.
apt_get() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=5 "$@"
}
# Without the mode, lists that could not be fetched are no failure.
update() { apt_get -o APT::Update::Error-Mode=any update; }
PAUSE=15
tries=3
until update; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ]; then
        say "apt-get update failed; trying with the package lists that are there"
        break
    fi
    say "apt-get update failed, next try in $PAUSE s"
    sleep "$PAUSE"
done

case " $missing " in *" postgresql "*)
    candidate=$(apt-cache policy postgresql | sed -n 's/^ *Candidate: *\([0-9][0-9]*\).*/\1/p')
    if [ "${candidate:-0}" -lt "$OLDEST_POSTGRES" ]; then
        say "this release of the system has PostgreSQL ${candidate:-none}, and $OLDEST_POSTGRES or newer is needed:"
        say "  sudo apt-get install postgresql-common && sudo /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh"
        say "adds the repository of the PostgreSQL project; then try again, or use --postgres-url"
        exit 1
    fi
    # Only the programs are wanted. Debian would also make a database and start a server on port 5432.
    no_cluster=/etc/postgresql-common/createcluster.d/zz-nemo-setup.conf
    $as_root mkdir -p "$(dirname "$no_cluster")"
    echo 'create_main_cluster = false' | $as_root tee "$no_cluster" >/dev/null
    ;;
esac

case " $missing " in *" etcd-server "*)
    # Only the program is wanted here too: Debian would also start a server on port 2379, now and with the machine.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        no_services=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$no_services" >/dev/null
        $as_root chmod 755 "$no_services"
    fi
    ;;
esac

tries=3
# shellcheck disable=SC2086 # a list of packages
until apt_get -y --no-install-recommends install $missing >&2; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || stop_with_command "apt-get install failed"
    say "apt-get install failed, next try in $PAUSE s"
    sleep "$PAUSE"
    # It may want what the mirror has no more.
    update || true
done
case " $missing " in *" etcd-server "*)
    if have systemctl; then $as_root systemctl disable --quiet etcd.service >/dev/null 2>&1 || true; fi
    ;;
esac
say "done"
