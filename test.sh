#!/usr/bin/env bash
# The gate: formatting, lints, docs, dependency rules, tests and examples. The same for a person and for CI.
#
# Needs cargo; installs a missing C compiler and redis-server on Debian (as root). One target directory and one debug
# profile serve all steps but the quick start's, so that little is built twice. The traces that some tests replay are
# looked for in ./traces and in the folder named by TIERKEEP_TRACES.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

export CARGO_TERM_COLOR=never # the totals are read from cargo's output
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
log="$scratch/tests.log"
: >"$log"
tests_failed=0
target="${CARGO_TARGET_DIR:-$PWD/target}"

# Runs a step, and says what it is and how long it took. The first step that fails ends the run; tests are counted.
step() {
    local name=$1 start=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    "$@" || { printf -- '-- %s: FAILED after %d s\n' "$name" $((SECONDS - start)) && exit 1; }
    printf -- '-- %s: %d s\n' "$name" $((SECONDS - start))
}

have() { command -v "$1" >/dev/null 2>&1; }

tools() {
    if ! have cargo && have apt-get && [ "$(id -u)" -eq 0 ]; then
        # Debian's own rustup (13 and later); its cargo may be older than this crate's.
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq rustup && rustup default stable
    fi
    have cargo || { echo "cargo is missing: install Rust from https://rustup.rs" && return 1; }
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt || return 1
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy || return 1
    if ! have cc || ! have pkg-config; then
        if have apt-get && [ "$(id -u)" -eq 0 ]; then
            apt-get update -qq || return 1
            DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends build-essential pkg-config || return 1
        else
            have cc || { echo "a C compiler is missing: install one (Debian: build-essential)" && return 1; }
        fi
    fi
    if ! have redis-server; then
        # The tests start servers of their own, on free ports; they use none that is installed as a service.
        if have apt-get && [ "$(id -u)" -eq 0 ]; then
            apt-get update -qq || return 1
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server || return 1
        else
            echo "redis-server is missing: install it (Debian: redis-server)" && return 1
        fi
    fi
    cargo --version
    # Also fetches the index, and fails if Cargo.lock is not up to date.
    cargo metadata --locked --format-version 1 >/dev/null
}

# The root crate's features, from the one place that states them.
features() {
    sed -n '/^\[features\]/,/^\[/s/^\([a-z0-9][a-z0-9_-]*\) *=.*/\1/p' Cargo.toml | grep -vx default
}

lint_each_feature() {
    local feature count=0
    cargo clippy -q -p tierkeep --lib --no-default-features -- -D warnings || return 1
    for feature in $(features); do
        echo "feature $feature"
        cargo clippy -q -p tierkeep --lib --no-default-features --features "$feature" -- -D warnings || return 1
        count=$((count + 1))
    done
    [ "$count" -gt 0 ] || { echo "no feature was found in Cargo.toml" && return 1; }
}

lint_some_pairs() {
    local pair
    for pair in rkyv_format,moka metrics,tracing disk,uuid bincode,ron gzip,zstd moka,metrics backplane,metrics backplane,redis-smol; do
        echo "features $pair"
        cargo clippy -q -p tierkeep --lib --no-default-features --features "$pair" -- -D warnings || return 1
    done
}

# Tests of an engine with one feature that reaches into its hit path. Its own dev-dependency turns the formats, the
# compressors and `testing` on for every test, so those are alone only where they are linted.
test_features_alone() {
    local feature
    for feature in metrics moka; do
        run_tests -p tierkeep --lib --no-default-features --features "$feature"
    done
}

docs() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps; }

# The engine must not bring a runtime into an application that runs on another one, nor by default what is a feature.
neutral() {
    local tree
    tree=$(cargo tree -p tierkeep -e normal --prefix none) || return 1
    if grep -E '^(tokio|async-std|smol|kameo)(-[a-z-]+)? v' <<<"$tree"; then
        echo "the engine depends on a runtime: cargo tree -p tierkeep -e normal -i <crate>"
        return 1
    fi
    if grep -E '^(metrics|tracing|moka) v' <<<"$tree"; then
        echo "a feature that is off by default is in the default tree: cargo tree -p tierkeep -e normal -i <crate>"
        return 1
    fi
    echo "no tokio, async-std, smol, kameo, metrics, tracing or moka among $(cut -d ' ' -f 1,2 <<<"$tree" | sort -u | wc -l) crates"
}

# Test failures do not end the run at once, so that one run shows all of them.
run_tests() {
    cargo test --no-fail-fast "$@" 2>&1 | tee -a "$log" || tests_failed=1
}

# The first run on a directory starts cold, the next one warm.
quick_start_on() {
    local runtime=$1 dir=$2 start=$3 out="$scratch/quickstart.out"
    echo "quickstart on $runtime, to start $start"
    cargo run -q --release --example quickstart -- --runtime "$runtime" --dir "$dir" >"$out" || { cat "$out" && return 1; }
    grep -qx 'requests 95607' "$out" || { cat "$out" && echo "not all requests were answered" && return 1; }
    grep -q "^$start start: " "$out" || { cat "$out" && echo "it did not start $start" && return 1; }
}

quick_start() {
    local dir="$scratch/quickstart" runtime
    cargo build --release --example quickstart || return 1
    for runtime in tokio async-std smol; do
        quick_start_on "$runtime" "$dir-$runtime" cold || return 1
    done
    quick_start_on smol "$dir-smol" warm || return 1
    if cargo run -q --release --example quickstart -- --runtime glommio 2>"$scratch/refused"; then
        echo "an unknown runtime was accepted" && return 1
    fi
    grep -q 'there is no runtime `glommio`' "$scratch/refused"
}

other_examples() {
    local example
    for example in custom_backend async_std smol fault write_behind; do
        echo "example $example"
        cargo run -q --all-features --example "$example" >"$scratch/example.out" || { cat "$scratch/example.out" && return 1; }
        grep -qx 'done' "$scratch/example.out" || { cat "$scratch/example.out" && echo "it did not get to its end" && return 1; }
    done
}

# A packed trace, drawn, and a text of three keys.
replay_example() {
    local svg="$scratch/replay.svg" out="$scratch/replay.out"
    cargo run -q --all-features --example replay -- --trace examples/data/web12.trace.zst --tier moka:137 --tier memory:687 \
        --svg "$svg" >"$out" || { cat "$out" && return 1; }
    grep -q '^95607 requests of ' "$out" || { cat "$out" && echo "not the whole trace was replayed" && return 1; }
    { [ -s "$svg" ] && grep -q '<svg' "$svg"; } || { echo "nothing was drawn" && return 1; }
    if grep -nF -e "$PWD" -e "$scratch" "$svg"; then
        echo "the drawing names a path of this machine" && return 1
    fi
    printf 'tea\ncoffee\ntea\n' >"$scratch/three.txt"
    cargo run -q --all-features --example replay -- --trace "$scratch/three.txt" --runtime smol >"$out" || { cat "$out" && return 1; }
    grep -q '^3 requests of ' "$out" || { cat "$out" && echo "not three keys were replayed" && return 1; }
}

# Checks itself; an hour of virtual time.
simulated_hour() { cargo run -q -p tierkeep-sim --example hour_of_ttls >"$scratch/hour.out" || { cat "$scratch/hour.out" && return 1; }; }

# Starts a service, asks it for its metrics and traces, and ends by itself.
telemetry_example() { cargo run -q -p axum-telemetry >"$scratch/telemetry.out" || { cat "$scratch/telemetry.out" && return 1; }; }

# A Redis of its own, and two services on two runtimes that show each other's writes; ends by itself.
shared_redis_example() {
    local socket="$scratch/redis.sock" server status=0
    have redis-server || { echo "redis-server is missing: install it (Debian: redis-server)" && return 1; }
    # Both services, of which one starts the other.
    cargo build -q -p shared-redis --bins || return 1
    redis-server --port 0 --unixsocket "$socket" --save "" --dir "$scratch" >"$scratch/redis.out" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        [ -S "$socket" ] && break
        sleep 0.05
    done
    # Bounded: a service that hangs must not hold up the gate, nor leave its server behind.
    timeout 120 cargo run -q -p shared-redis -- --check "redis+unix://$socket" >"$scratch/shared.out" 2>&1 || status=1
    kill "$server" && wait "$server" 2>/dev/null
    if [ "$status" -ne 0 ] || ! grep -qx 'done' "$scratch/shared.out"; then
        cat "$scratch/shared.out"
        return 1
    fi
}

# Crates of their own: loom's types stand in for the standard library's in files of the engine, and the fuzz targets are
# for cargo-fuzz on nightly. They are built in the one target directory all the same, and share what they depend on.
order_models() {
    (cd models && CARGO_TARGET_DIR="$target" cargo run -q --release) >"$scratch/models.out" 2>&1 ||
        { cat "$scratch/models.out" && return 1; }
    tail -n 1 "$scratch/models.out"
}

fuzz_targets() {
    (cd fuzz && cargo fmt --check && CARGO_TARGET_DIR="$target" cargo check -q --bins) || return 1
    (cd models && cargo fmt --check)
}

dependencies() {
    if ! cargo deny --version >/dev/null 2>&1; then
        echo "skipped: cargo-deny is not installed"
        return 0
    fi
    cargo deny check bans licenses || return 1
    if cargo deny fetch db >/dev/null 2>&1; then
        cargo deny check advisories
    else
        echo "advisories skipped: the advisory database cannot be reached"
    fi
}

# What the failed tests printed, once more: whoever reads only the end of a long log needs their names.
failures() {
    awk '/^ +(Running|Doc-tests) / { binary = $0 }
         /^failures:$/ { if (!telling) print "\n" binary; telling = 1 }
         telling
         /^test result: / { telling = 0 }' "$log"
}

# Totals over all test binaries, unless one of them ended without telling (it did not build, or was killed).
totals() {
    local started told
    started=$(grep -cE '^ +(Running|Doc-tests) ' "$log" || true)
    told=$(grep -c '^test result: ' "$log" || true)
    # Doctests may tell more than once: merged ones apart from the others.
    if [ "$started" -gt "$told" ] || [ "$told" -eq 0 ] || { [ "$tests_failed" -ne 0 ] && ! grep -q '^test result: FAILED' "$log"; }; then
        echo "no totals: a test binary did not build or did not end by itself, see above"
        return
    fi
    awk '/^test result: / { for (i = 2; i <= NF; i++) {
             if ($i == "passed;") passed += $(i - 1)
             if ($i == "failed;") failed += $(i - 1)
             if ($i == "ignored;") ignored += $(i - 1) } }
         END { if (ignored) print ignored " ignored"
               print passed + 0 " passed, " failed + 0 " failed" }' "$log"
}

step "tools" tools
step "formatting" cargo fmt --all --check
step "lints, all features" cargo clippy --workspace --all-targets --all-features -- -D warnings
step "lints, tests without default features" cargo clippy -p tierkeep --all-targets --no-default-features -- -D warnings
step "lints, each feature alone" lint_each_feature
step "lints, pairs of features" lint_some_pairs
step "docs" docs
step "runtime neutrality" neutral
step "dependencies" dependencies
step "tests, all features" run_tests --all-features
step "tests, no default features" run_tests -p tierkeep --no-default-features
step "tests, some features alone" test_features_alone
step "exploration and planted bugs" run_tests --release -p tierkeep-sim --features journal --test exploration
step "order models, under loom" order_models
step "fuzz targets build" fuzz_targets
step "quick start" quick_start
step "other examples" other_examples
step "replay example" replay_example
step "simulated hour" simulated_hour
step "telemetry example" telemetry_example
step "services that share a Redis" shared_redis_example

[ "$tests_failed" -eq 0 ] || failures
printf '\n== done in %d s\n' "$SECONDS"
totals
exit "$tests_failed"
