# netloom. `make help` lists what there is; CI runs `make ci`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET := $(or $(CARGO_TARGET_DIR),target)
NETLOOM := $(TARGET)/release/netloom
CARGO := cargo
# cargo-nextest is faster and kinder to read; plain `cargo test` gives the same verdict.
RUN_TESTS := $(if $(shell command -v cargo-nextest),nextest run,test)
# Each has a lab of its own. More at a time and the machine is too slow for what they wait for.
TWO_AT_A_TIME := $(if $(shell command -v cargo-nextest),--test-threads 2,-- --test-threads 2)
.PHONY: help setup setup-lint setup-test setup-bench build demo demo-down test check fmt lint unit e2e soak fuzz ebpf ebpf-check gen gen-check deny bench doc ci clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## install what is missing: Debian packages, a Rust toolchain
	@scripts/setup

setup-lint:
	@scripts/setup lint

setup-test:
	@scripts/setup test

setup-bench:
	@scripts/setup bench

build: setup ## target/release/netloom
	$(CARGO) build --release --locked -p netloom

demo: build ## two hosts, two tenants with the same addresses, four VMs; stays up
	$(NETLOOM) lab up examples/two-tenants.yaml --name demo
	$(NETLOOM) lab check --name demo

demo-down: ## remove every trace of the demo
	$(NETLOOM) lab down --name demo

test: unit e2e ## all tests; needs root

check: setup ## does it compile?
	$(CARGO) check --locked --all-targets

fmt: setup-lint ## is it formatted?
	$(CARGO) fmt --check
	cd ebpf && $(CARGO) fmt --check
	cd fuzz && $(CARGO) fmt --check

lint: setup-lint ## clippy, warnings denied
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# No test is skipped for want of what setup-test installs: without it, it fails.
export NETLOOM_NO_SKIP := 1

unit: setup-test ## unit, property, kernel and contract tests, tidy
	$(CARGO) $(RUN_TESTS) --locked --workspace --exclude netloom-tests --exclude netloom-bench

# The debug binary: the unit tests have built most of it, and its assertions are on.
e2e: setup-test ## end to end: real processes, real packets in network namespaces
	$(CARGO) build --locked -p netloom
	NETLOOM_BIN=$(abspath $(TARGET))/debug/netloom $(CARGO) $(RUN_TESTS) --locked -p netloom-tests $(TWO_AT_A_TIME)

soak: setup-test ## what takes hours: a server killed 300 times, 100 times as many odd requests, 10,000 policies in the kernel
	NETLOOM_SOAK=$(abspath bench/results/soak.json) $(CARGO) test --locked -p netloom --test kills -- --nocapture
	NETLOOM_SOAK_POLICIES=$(abspath bench/results/policies.json) $(CARGO) test --locked -p netloom-agent --lib kernels_decide -- --nocapture
	NETLOOM_CASES=100 NETLOOM_SEED=$$RANDOM $(CARGO) test --locked -p netloom-api --test schemathesis

fuzz: setup ## let a fuzzer look for bytes that a parser does not bear; needs a nightly toolchain
	scripts/fuzz

ebpf: setup ## rebuild the eBPF object that is committed, and what the verifier says of it
	scripts/build-ebpf
	NETLOOM_RENEW=1 $(CARGO) test --locked -p netloom-dataplane --test instructions --test layouts

ebpf-check: setup ## is the committed eBPF object what its sources give?
	scripts/build-ebpf --check

gen: ## regenerate committed code, and docs/api-coverage.md
	$(CARGO) run --locked -p xtask --features gen -- gen
	NETLOOM_RENEW=1 $(CARGO) test --locked -q -p netloom-model --test coverage

gen-check: ## is the committed generated code current?
	$(CARGO) run --locked -p xtask --features gen -- gen --check

deny: ## licences, duplicates and sources of dependencies (slow to build the first time)
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny --all-features check bans licenses sources

bench: build setup-bench ## measure side by side; writes bench/results and docs/benchmarks.md
	$(CARGO) run --release --locked -p netloom-bench -- --netloom $(NETLOOM)

doc: setup ## API documentation
	$(CARGO) doc --locked --no-deps --workspace

ci: fmt lint ebpf-check test ## exactly what CI runs

clean: ## remove what was built
	$(CARGO) clean
	rm -rf ebpf/target
