# A few verbs; `make help` lists them. Everything real is in cargo and scripts/.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help setup build demo compare bench test reliability fuzz lint vm-test clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## Install what building and running needs (asks for sudo there, and only there)
	@scripts/setup.sh

build: setup ## Build the release binary
	cargo build --release

demo: ## Build, then run the hci-firewall lab with real VMs in a sandbox, test it, remove it
	@scripts/demo.sh

compare: ## Build, then measure every networking mode against its contract; ARGS="vmware --json" for some, or in other forms
	@scripts/compare.sh $(ARGS)

bench: ## Build, then measure netloom beside its alternatives; RUNS=9 PARTS=fabric SIZES=100,500 for less or more (docs/performance.md)
	@scripts/bench.sh $(ARGS)

test: ## Format, lints, every test, and a check that nothing is left behind
	@scripts/test.sh

reliability: ## Fail, kill, crowd, damage: the reliability tests in full length (hours); docs/reliability.md has the figures
	NETLOOM_RELIABILITY=full cargo test --release --test reliability -- --include-ignored --test-threads 1 --nocapture

TIME ?= 600
fuzz: ## Fuzz each target for TIME seconds (600); needs a nightly compiler and `cargo install cargo-fuzz`
	@scripts/fuzz.sh $(TIME)

lint: ## Format and lints alone
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

vm-test: ## Run the unit tests under the distribution's full kernel in a throw-away VM
	cargo test --no-run
	scripts/full-kernel-vm.sh cargo test --offline

clean: ## Remove what building made
	cargo clean
