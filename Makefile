# Everything from nothing but make and Python 3.11 or newer: the first target that needs it builds .venv, for the
# demonstration with the package alone, for the other targets with the tools of development too.

PYTHON ?= python3
BIN := .venv/bin
SHARED := $(or $(LTPROMPT_SHARED),../shared)

.DEFAULT_GOAL := help
.PHONY: help demo test test-wheel test-real bench check format architecture hooks clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "ltprompt needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not found);" \
			"name another with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@echo "installing torch (the largest part, once)"
	@$(BIN)/pip install -q -c constraints.txt torch
	@echo "installing ltprompt and what it needs"
	@$(BIN)/pip install -q --no-input -c constraints.txt -e .
	@touch $@

.venv/.dev: .venv/.ready
	@echo "installing the tools of development"
	@$(BIN)/pip install -q --no-input -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/.ready ## walk the command line on a small model
	$(BIN)/ltprompt demo
	@echo "To type commands yourself: . $(BIN)/activate"

test: .venv/.dev ## the test suite and what of the code it ran, without network and without other folders
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --cov --cov-report= -m "not real and not wheel"

test-wheel: .venv/.dev ## the package as its users install it, in a new environment (takes minutes and a package index)
	$(BIN)/python -m pytest -q -m wheel

test-real: .venv/.dev ## the slow tests: the wheel, real models and data, where those are present
	@if [ -d "$(SHARED)" ]; then \
		echo '$(BIN)/python -m pytest -q -m "real or wheel"'; $(BIN)/python -m pytest -q -m "real or wheel"; \
	else \
		echo "test-real: no folder $(SHARED) here, so nothing to run; LTPROMPT_SHARED names another"; \
	fi

bench: .venv/.dev ## measure against rivals and write docs/benchmarks.md (hours, on a quiet machine)
	$(BIN)/python -m benchmarks run --shape xlmr --dtype fp32
	$(BIN)/python -m benchmarks run --shape xlmr --dtype bf16 --case stage1 --case stage2-ltp --case stage2-prompt --case evaluation
	$(BIN)/python -m benchmarks run --shape mini --runs 1 --case linear-stage1 --case linear-evaluation
	$(BIN)/python -m benchmarks table docs/benchmarks.json docs/benchmarks.md

check: .venv/.dev ## format, lint, types, import direction, and whether the diagram of imports is up to date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/architecture.py --check

format: .venv/.dev ## format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

architecture: .venv/.dev ## draw the diagram of docs/architecture.md anew, from the imports
	$(BIN)/python tools/architecture.py

hooks: .venv/.dev ## have git run `make check` before every commit of this checkout
	$(BIN)/pre-commit install

clean: ## remove .venv, caches and built files
	rm -rf .venv build dist .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
