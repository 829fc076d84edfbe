# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= python3.13 python3.12 python3.11 python3
LOCK_PYTHON ?= python3.11
ARGS ?=

.PHONY: help demo test check bench bench-compare docs kafka lock clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' Makefile

demo: $(READY) ## See it work against a local LimaCharlie (Ctrl-C ends it)
	@$(BIN)/lc-pipeline demo $(ARGS)

test: $(READY) ## Run the tests, in two processes; ARGS="-k spout" is handed to pytest, CI=true makes a missing Kafka an error
	$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-n 2 --dist loadgroup --no-loadscope-reorder)

check: $(READY) ## Lint, formatting, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

bench: $(READY) ## Measure on this machine, beside other programs; ARGS="--quick" to see that it runs (docs/performance.md)
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/python -m benchmarks $(ARGS)

bench-compare: $(READY) ## Is this tree slower than another commit? make bench-compare BASE=main ARGS="--pairs 8"
	@test -n "$(BASE)" || { echo "Say with which commit: make bench-compare BASE=main" >&2; exit 1; }
	@$(BIN)/python -m benchmarks.compare $(BASE) $(ARGS)

docs: $(READY) ## Write docs/reference from the code
	$(BIN)/python docs/generate.py

kafka: $(READY) ## Run a Kafka broker on localhost:9092 (needs Java 17 and Maven)
	@$(BIN)/python tests/kafka_broker.py $(ARGS)

# The oldest Python that we support chooses, so that each version exists for all of them.
lock: ## Choose versions anew and write constraints.txt (needs python3.11)
	rm -rf build && $(LOCK_PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install -q '.[dev,uvloop,bench]'
	{ echo '# Versions that are known to work together; `make lock` writes this file.'; \
	  build/lock/bin/python -m pip freeze --exclude lc-pipeline | grep -E '^[A-Za-z0-9._-]+==[^ ]+$$'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build

clean: ## Remove the environment and what the tools left (records of a demo stay)
	rm -rf $(VENV) .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find pipeline tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || for python in $(PYTHON); do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$python" --version)."; "$$python" -m venv $(VENV); exit; \
	  fi; \
	done; \
	test -x $(BIN)/python || { \
	  echo "No Python 3.11 or newer with venv was found ($(PYTHON))." >&2; \
	  echo "Install one (Debian: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Installing what is needed into $(VENV) …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m compileall -q pipeline # each start reads this, also where Python may not write it
	@touch $@
