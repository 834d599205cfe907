#!/bin/sh
# Builds what is shipped into target/dist: with link-time optimization, and the data plane guided by a profile of itself
# under the benchmark's load. Called by `make dist`, and so by every `make bench…` that measures the data plane.
#
# The profile is made anew when a source has changed since; that is two builds of the data plane instead of one. It needs
# the llvm-profdata of the compiler's own LLVM version: from `rustup component add llvm-tools`, or the package llvm-<version>,
# which `make dist` installs where there is one. Without it, or with NEMO_PROFILE=off, the data plane is built like the rest, and this says so.
set -eu

cd "$(dirname "$0")/.."
CARGO=${CARGO:-cargo}
TARGET=${CARGO_TARGET_DIR:-target}
case $TARGET in /*) ;; *) TARGET=$(pwd)/$TARGET ;; esac
WORK=$TARGET/profile

say() { printf 'dist: %s\n' "$*" >&2; }

# The tool that reads what this compiler's programs write, or nothing.
profdata() {
    version=$(rustc -vV | sed -n 's/^LLVM version: *\([0-9]*\).*/\1/p')
    host=$(rustc -vV | sed -n 's/^host: *//p')
    for tool in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" "llvm-profdata-$version" llvm-profdata; do
        if "$tool" --version 2>/dev/null | grep -q "version $version\."; then
            echo "$tool"
            return
        fi
    done
}

# What the program is made of, as a name.
sources() {
    {
        rustc -vV
        find Cargo.toml Cargo.lock data-plane shared proto -type f \
            \( -name '*.rs' -o -name '*.proto' -o -name 'Cargo.*' \) -not -path '*/tests/*' -print0 |
            LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c1-16
}

build() { "$CARGO" build --locked --profile dist --bins "$@"; }

build -p nemo-control-plane -p nemo-tests

tool=
[ "${NEMO_PROFILE:-on}" = off ] || tool=$(profdata)
if [ -z "$tool" ]; then
    [ "${NEMO_PROFILE:-on}" = off ] || say "no llvm-profdata for this compiler: the data plane is built without a profile"
    build -p nemo-data-plane
    exit
fi

# Cargo looks at the name alone when it decides what to build again.
profile=$WORK/data-plane-$(sources).profdata
if [ ! -f "$profile" ]; then
    say "building the data plane to be profiled"
    rm -rf "$WORK/raw" "$WORK/bin"
    mkdir -p "$WORK/raw" "$WORK/bin"
    # Everything that decides a function's name and shape is as in the build that is shipped; only what comes after, the
    # link-time optimization, is left out, since it takes long and changes nothing of what is counted.
    CARGO_TARGET_DIR=$WORK/build RUSTFLAGS="-Cprofile-generate=$WORK/raw -Clto=off -Clinker-plugin-lto=no" \
        build -p nemo-data-plane
    cp "$TARGET/dist/nemo-bench" "$TARGET/dist/nemo-control-plane" "$WORK/build/dist/nemo-data-plane" "$WORK/bin/"
    # Build scripts and macros were built with the same flags.
    rm -f "$WORK"/raw/*
    say "profiling it under the benchmark's load"
    "$WORK/bin/nemo-bench" run --rounds 1 --seconds 2 --floor raw >"$WORK/bench.txt" 2>&1 || {
        cat "$WORK/bench.txt" >&2
        exit 1
    }
    rm -f "$WORK"/*.profdata
    "$tool" merge --sparse -o "$profile" "$WORK"/raw/*.profraw
fi
say "building the data plane with its profile"
RUSTFLAGS="-Cprofile-use=$profile" build -p nemo-data-plane
