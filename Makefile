# `make test` installs what the tests need (pinned, into .tools and tests/e2e/node_modules) and runs them all.
# It wants Rust, a C compiler, Node and Python 3, and root or sudo for Debian packages that are missing.

CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# What the steps of a run print is kept for the catalogue, under the name of the run: no step of another one counts.
export RESULTS := $(or $(RESULTS),$(CURDIR)/target/results)
export RUN := $(or $(RUN),$(shell date +%s%N))
RECORD := $(CURDIR)/tests/catalogue/record.sh

# Each is compiled once, without optimisation: about a minute, and quick enough for what it does.
DENY := cargo-deny@0.20.2
LLVM_COV := cargo-llvm-cov@0.9.1
CARGO_MUTANTS := cargo-mutants@27.1.0

.tools/cargo/%:
	CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install --locked --debug --quiet --no-default-features --root $(@D) $*
	touch $@

.PHONY: test steps tools format lint docs deny unit deploy tls e2e differential guard fuzz apps attack \
  advisories coverage mutants conformance bench bench-full bench-idle profile clean

# Then, also after a failure: every row of tests/catalogue/rows.toml, and whether the tests that hold it passed.
test:
	@status=0; $(MAKE) steps || status=$$?; tests/catalogue/catalogue.py || status=1; exit $$status

steps: tools format lint docs deny unit deploy tls e2e differential guard

tools:
	tests/tools.sh

format:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

# Crates, licences and sources. The advisories want a database from elsewhere: `make advisories` fetches it.
deny: .tools/cargo/$(DENY)
	$(RECORD) deny .tools/cargo/bin/cargo-deny --all-features --locked check bans licenses sources
	$(RECORD) deny-fuzz .tools/cargo/bin/cargo-deny --manifest-path fuzz/Cargo.toml --config deny.toml --locked \
	  check sources

advisories: .tools/cargo/$(DENY)
	.tools/cargo/bin/cargo-deny --locked check advisories

unit:
	$(RECORD) unit $(CARGO) test

deploy: unit
	$(RECORD) deploy tests/deploy/check.py

# What testssl.sh and sslyze find: nothing.
tls: unit
	$(RECORD) tls tests/tls/scan.py

e2e: unit
	cd tests/e2e && $(RECORD) e2e npm test -- \
	  --test-reporter=spec --test-reporter-destination=stdout \
	  --test-reporter=../catalogue/reporter.mjs --test-reporter-destination=$(RESULTS)/e2e.tests

# Generated targets, return URLs and HTTP/1 payloads, and what nginx, Apache, Node, Python and Chromium make of them.
# Then floods and stalls, and what they cost: memory, processor time, and the time of others.
differential: unit
	$(RECORD) differential tests/attack/attack.py

# The same with whole budgets: a million targets, floods of 100,000, these on release builds. Some minutes, and those of
# the build.
attack: tools
	$(CARGO) build --bin portcullis --example judge --example flood
	$(RECORD) attack tests/attack/attack.py --whole

# Lines of the modules that decide who is let through, and those that no test reaches. Some ten minutes.
coverage: tools .tools/cargo/$(LLVM_COV)
	rustup component add llvm-tools
	mkdir -p target/coverage
	.tools/cargo/bin/cargo-llvm-cov llvm-cov --no-cfg-coverage --lib --bins --test it \
	  --lcov --output-path target/coverage/lcov.info
	tests/coverage.py target/coverage/lcov.info

# Changes of these modules, one at a time, and whether the tests notice: 45 minutes. Only what survived of one so far:
# make mutants MUTANTS="--again policy". See tests/mutants.md.
mutants: tools .tools/cargo/$(CARGO_MUTANTS)
	tests/mutants.py $(MUTANTS)

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

# Records what release builds are optimised for, into .cargo/release.profdata and .cargo/release.order. Some ten minutes.
# Cargo does not know that compiled crates are made with it: `cargo clean` before the next release build.
profile:
	rustup component add llvm-tools
	benches/profile.py

# Start time and idle memory of `run`, as stated in the README.
bench-idle:
	$(CARGO) build --release
	benches/idle.py

clean:
	$(CARGO) clean
	rm -rf .tools tests/e2e/node_modules tests/artifacts
