# The project's commands. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_PORT ?= 7777
RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock pyproject.toml
PY_SOURCES := python tests examples benches
CORE := $(VENV)/.core-installed
FUZZ_SECONDS ?= 30
FUZZ_TARGETS ?= packets messages upgrade websocket_frames link schema_decode world_replica

.PHONY: help demo test bench soak chaos fuzz fmt lint docs clean

help: ## List these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(VENV)/.made:
	@echo "== making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.tools: $(VENV)/.made requirements.lock
	@echo "== installing what the build and the tests need"
	@$(BIN)/python -m pip install --quiet -r requirements.lock
	@touch $@

# A release build of the core beside the Python sources (maturin's editable install).
$(CORE): $(VENV)/.tools $(RUST_SOURCES)
	@echo "== building the core (release; some minutes the first time)"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --quiet
	@touch $@

demo: $(CORE) ## Build a release core, start the demo, print its URL
	@echo "== starting the arena: open http://127.0.0.1:$(DEMO_PORT)/ in two windows; Ctrl-C stops it"
	@GAMESERVER_PORT=$(DEMO_PORT) exec $(BIN)/python examples/arena.py

test: $(CORE) ## Format, lint, type and run all tests
	@./tests/needs.sh
	@$(MAKE) --no-print-directory lint
	@echo "== cargo test"
	@cargo test --workspace --quiet
	@echo "== stubtest"
	@MYPYPATH=python $(BIN)/python -m mypy.stubtest gameserver._core --ignore-missing-stub --allowlist tests/typing/stubtest-allow.txt
	@echo "== tests of the JavaScript client"
	@node --test tests/js/
	@echo "== pytest"
	@$(BIN)/python -m pytest -q

lint: $(VENV)/.tools ## rustfmt, clippy, ruff, mypy strict, pyright on the examples
	@echo "== rustfmt, clippy"
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --quiet -- -D warnings
	@echo "== ruff, mypy, pyright"
	@$(BIN)/ruff check $(PY_SOURCES)
	@$(BIN)/ruff format --check $(PY_SOURCES)
	@$(BIN)/mypy
	@$(BIN)/pyright --level warning

fmt: $(VENV)/.tools ## Format everything
	@cargo fmt --all
	@$(BIN)/ruff check --fix-only --quiet $(PY_SOURCES)
	@$(BIN)/ruff format $(PY_SOURCES)

bench: $(CORE) ## Measure all against references in the same run (ARGS=--quick: five minutes)
	@$(BIN)/python -m pip install --quiet -r benches/requirements.lock
	@$$($(BIN)/python benches/interpreter.py) benches/all.py $(ARGS)

soak: $(CORE) ## Play a game for MINUTES (30), and its rooms for as long: nothing may leak or fail
	@$(BIN)/python benches/soak.py $(or $(MINUTES),30)

chaos: $(CORE) ## Kill writers and databases, take stores away under load, fail a cluster over: nothing durable may be lost
	@$(BIN)/python benches/chaos.py $(ARGS)

fuzz: ## Fuzz each target FUZZ_SECONDS (30) seconds; needs a nightly toolchain and cargo-fuzz
	@command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
	@for target in $(FUZZ_TARGETS); do \
		echo "== fuzz $$target: begins with fuzz/corpus/$$target, keeps what it finds in fuzz/work/$$target"; \
		mkdir -p fuzz/work/$$target; \
		cargo +nightly fuzz run $$target --fuzz-dir fuzz fuzz/work/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS); \
	done

docs: ## Rust API documentation
	@cargo doc --workspace --no-deps

clean: ## Remove what was built
	@rm -rf target $(VENV) benches/out fuzz/work fuzz/target tests/peers/*/node_modules tests/peers/pypomelo/.site tests/typing/ts/node_modules
