#!/usr/bin/env bash
# Installs what the tests need and the machine lacks: Debian packages, npm packages (pinned by
# tests/e2e/package-lock.json). tests/deploy/check.py installs its own pinned Python packages in .tools/deploy.
# Run again it does nothing. What can't be installed is said loudly and fails.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf '\ntests/tools.sh: %s\n' "$*" >&2; exit 1; }

for tool in cargo node npm python3 cc; do
  command -v "$tool" >/dev/null || fail "$tool is missing; install Rust, a C compiler, Node 20 and Python 3.11 first"
done

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v systemd-analyze >/dev/null || missing+=(systemd)
command -v openssl >/dev/null || missing+=(openssl)
command -v valgrind >/dev/null || missing+=(valgrind)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v redis-sentinel >/dev/null || missing+=(redis-sentinel)
command -v h2load >/dev/null || missing+=(nghttp2-client)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || fail "install these by hand: ${missing[*]}"
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  export DEBIAN_FRONTEND=noninteractive
  echo "installing Debian packages: ${missing[*]}"
  $sudo apt-get update -qq || fail "apt-get update failed"
  $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || fail "apt-get install failed: ${missing[*]}"
fi

mkdir -p .tools
stamp() { sha256sum "$@" | sha256sum | cut -d' ' -f1; }

want=$(stamp tests/e2e/package-lock.json)
if [ "$(cat .tools/npm.stamp 2>/dev/null)" != "$want" ] || [ ! -d tests/e2e/node_modules ]; then
  (cd tests/e2e && npm ci --silent --no-audit --no-fund) || fail "npm ci failed"
  echo "$want" > .tools/npm.stamp
fi
