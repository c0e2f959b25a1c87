# make run       install, ingest the sample handbook, serve it on http://127.0.0.1:8080 (PORT=9000 for another port)
# make test      all tests but the nightly ones
# make check     format, lint, types, tests
# make bench     the figures, measured here
#
# Everything lives in .venv (VENV=…) and is made with python3 (PYTHON=python3.12). A stamp in it remembers what is installed.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8080
CONFIG ?= examples/handbook.yaml
# How pytest is called: on a process for each core, eight at most; `make test WORKERS=0` on one, `PYTEST_ARGS=tests/corpus` some.
WORKERS ?= auto
PYTEST_ARGS ?=
# Where builds of torch without CUDA are; with a GPU: TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130
TORCH_INDEX_URL ?= https://download.pytorch.org/whl/cpu

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n $(WORKERS) --maxprocesses 8 --dist loadfile
DESCRIBED := pyproject.toml constraints.txt

.PHONY: run install test test-nightly check bench clean
.DELETE_ON_ERROR:

# Exit code 3 of ingest is "done, with documents that failed": they are listed, the others can be asked about.
run: install
	@$(BIN)/archivist ingest --config $(CONFIG) || [ $$? -eq 3 ]
	@$(BIN)/archivist serve --config $(CONFIG) --port $(PORT) --example 'How many days does a working student get?'

install: $(VENV)/.installed

test: $(VENV)/.installed-dev
	$(PYTEST) $(PARALLEL) -m "not nightly" $(PYTEST_ARGS)

test-nightly: $(VENV)/.installed-dev
	$(PYTEST) -m nightly $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

bench: $(VENV)/.installed-dev
	$(BIN)/archivist bench

# Your documents' data/ is left alone.
clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  found=$$($(PYTHON) --version 2>/dev/null) || found="not here"; \
	  echo "Archivist needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$found. Another: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch by itself and first: what else comes with it then follows from there, and no index but torch's own is asked for it.
$(VENV)/.installed: $(DESCRIBED) | $(VENV)/bin/python
	@echo "Installing into $(VENV); this takes a few minutes once."
	$(PIP) --no-deps --retries 1 --timeout 15 --extra-index-url $(TORCH_INDEX_URL) 'torch>=2.6,<2.14'
	$(PIP) -e '.[ingest]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@
