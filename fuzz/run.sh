#!/usr/bin/env bash
# Runs fuzz targets, one after the other: those that are named, or all. FUZZ_SECONDS for each, 60 if it is not set.
# Installs cargo-fuzz (pinned, into .tools/cargo) if it is missing. Fails if a target does, after all have run.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf '\nfuzz/run.sh: %s\n' "$*" >&2; exit 1; }

VERSION=0.13.2
for tool in cargo c++; do
  command -v "$tool" >/dev/null || fail "$tool is missing; libFuzzer wants Rust and a C++ compiler (Debian: g++)"
done
export PATH="$PWD/.tools/cargo/bin:$PATH"
if [ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $VERSION" ]; then
  echo "installing cargo-fuzz $VERSION into .tools/cargo"
  cargo install cargo-fuzz --version "$VERSION" --locked --quiet --root .tools/cargo \
    || fail "cargo-fuzz $VERSION could not be installed from crates.io; nothing was fuzzed"
fi

# What libFuzzer wants of the compiler is for nightly ones only, unless this is said.
export RUSTC_BOOTSTRAP=1
options=(--dev --sanitizer none)
cargo fuzz build "${options[@]}" || fail "the targets could not be built; nothing was fuzzed"

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd fuzz/fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')
failed=()
for target in "${targets[@]}"; do
  [ -f "fuzz/fuzz_targets/$target.rs" ] || fail "there is no target $target"
  mkdir -p "fuzz/corpus/$target"
  log="fuzz/corpus/$target.log"
  if cargo fuzz run "${options[@]}" "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 >"$log" 2>&1; then
    result=held
  else
    result=FAILED
    failed+=("$target")
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -1)
  printf '%-20s %-7s %10s runs %7s edges\n' "$target" "$result" "${runs:-?}" "${covered:-?}"
  [ "$result" = held ] || { grep -A3 -E 'panicked at|ERROR: libFuzzer' "$log" || true; grep 'Test unit written to' "$log" || tail -5 "$log"; }
done
[ ${#failed[@]} -eq 0 ] || fail "invariants broken in: ${failed[*]} (fuzz/artifacts has the inputs, fuzz/corpus/*.log the rest)"
