# Everything from nothing but make and Python 3.11 or newer: the first target that needs it builds .venv.

PYTHON ?= python3
BIN := .venv/bin
SHARED := $(or $(LTPROMPT_SHARED),../shared)

.DEFAULT_GOAL := help
.PHONY: help demo test test-real check format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "ltprompt needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not found);" \
			"name another with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@echo "installing torch (the largest part, once)"
	@$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	@echo "installing ltprompt, what it needs and the tools"
	@$(BIN)/pip install -q --no-input -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/.ready ## walk the command line on a small model
	$(BIN)/ltprompt demo

test: .venv/.ready ## the test suite, without network and without other folders
	$(BIN)/python -m pytest -q -m "not real"

test-real: .venv/.ready ## the slow tests on real models and data, where those are present
	@if [ -d "$(SHARED)" ]; then \
		echo '$(BIN)/python -m pytest -q -m real'; $(BIN)/python -m pytest -q -m real; \
	else \
		echo "test-real: no folder $(SHARED) here, so nothing to run; LTPROMPT_SHARED names another"; \
	fi

check: .venv/.ready ## format, lint, types and import direction
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/.ready ## format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv, caches and built files
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
