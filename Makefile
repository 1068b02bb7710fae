# `make test` installs what the tests need (pinned, into .tools and tests/e2e/node_modules) and runs them all.
# It wants Rust, a C compiler, Node and Python 3, and root or sudo for Debian packages that are missing.

CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: test tools format lint docs unit deploy e2e differential guard fuzz apps attack conformance bench bench-full bench-idle clean

test: tools format lint docs unit deploy e2e differential guard

tools:
	tests/tools.sh

format:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

unit:
	$(CARGO) test

deploy: unit
	tests/deploy/check.py

e2e: unit
	cd tests/e2e && npm test

# Generated targets, return URLs and HTTP/1 payloads, and what nginx, Apache, Node, Python and Chromium make of them.
# Then floods and stalls, and what they cost: memory, processor time, and the time of others.
differential: unit
	tests/attack/attack.py

# The same with whole budgets: a million targets, floods of 100,000. Some minutes.
attack: tools
	$(CARGO) build --bin portcullis --example judge --example flood
	tests/attack/attack.py --whole

# Every fuzz target for FUZZ_SECONDS (60), one after the other; `make unit` has the seeds of all. See fuzz/README.md.
fuzz:
	fuzz/run.sh

# JupyterLab, Streamlit and grpcio behind the proxy, after a login in Chromium. Not part of `make test`: about 700 MB
# of packages from PyPI, pinned by tests/apps/requirements.txt, go into .tools/apps.
apps: tools
	$(CARGO) build
	tests/apps/tools.sh
	cd tests/apps && node --test --test-concurrency=1 --test-timeout=120000 --test-reporter=spec

# Wants Go besides: h2spec is installed through the Go module proxy. `make test` has its cases as raw frames.
conformance:
	$(CARGO) build
	tests/conformance/h2spec.py

# Instructions of an authorised request, against the code before: a rise needs a reason. See benches/guard.py.
guard: tools
	benches/guard.py

# Side by side with nginx and one OIDC rival, or with all of them; writes docs/benchmarks. See benches/README.md.
bench:
	$(CARGO) build --release
	benches/bench.py

bench-full:
	$(CARGO) build --release
	benches/bench.py --full

# Start time and idle memory of `run`, as stated in the README.
bench-idle:
	$(CARGO) build --release
	benches/idle.py

clean:
	$(CARGO) clean
	rm -rf .tools tests/e2e/node_modules tests/artifacts
