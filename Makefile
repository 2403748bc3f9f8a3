# Two commands are all a fresh machine needs: `make demo` and `make test`. Both create .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test nightly coverage coverage-nightly docs lint types check install browser clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, then train and compare the backward strategies on embedded data (4 to 8 minutes)"
	@echo "make test    set up, then run the tests"
	@echo "make nightly set up, then run the long tests"
	@echo "make coverage the tests, and which lines they ran"
	@echo "make check   lint, types and tests"
	@echo "make docs    set up, then build the documentation in docs/_build/html"

# CUDA's libraries are 5 of the environment's 7 GB. Without a GPU PyTorch's own wheels for CPUs do, where their index can
# be reached and pip is not told to use another one. What a .venv has, it keeps; CPU_WHEELS= for CUDA all the same.
CPU_WHEELS ?= https://download.pytorch.org/whl/cpu
HAS_GPU = test -e /dev/nvidiactl || command -v nvidia-smi
HAS_TORCH = $(BIN)/python -c 'from importlib.metadata import version; version("torch")'
OWN_INDEX = test -n "$$PIP_INDEX_URL" || $(BIN)/python -m pip config get global.index-url
REACHED = $(BIN)/python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + "/torch/", timeout=5)'

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	-$(BIN)/python -m pip install --quiet --upgrade pip  # an old one searches for minutes
	@if test "$$(uname -s)" != Linux || test -z "$(CPU_WHEELS)" || \
		{ $(HAS_GPU) || $(HAS_TORCH) || $(OWN_INDEX); } >/dev/null 2>&1; then :; \
	elif $(REACHED) "$(CPU_WHEELS)" 2>/dev/null && echo "no GPU here: PyTorch for CPUs, from $(CPU_WHEELS)" && \
		$(BIN)/python -m pip install --quiet --index-url "$(CPU_WHEELS)" torch torchvision; then :; \
	else echo "no GPU here, and no wheels for CPUs at $(CPU_WHEELS): PyTorch comes with CUDA, 5 GB more"; fi
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/ovos-ray demo $(ARGS)

# One process does what needs Ray, the other one the rest (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest --durations=25
BOTH := -n 2 --dist loadscope --no-loadscope-reorder

test: $(INSTALLED)
ifdef ARGS
	$(PYTEST) $(ARGS)
else
	$(PYTEST) $(BOTH)
endif

# Long runs: what leaks a little at a time, the death of nodes, the browser on real studies; and drawn cases, of which
# `make test` has the same ones every time.
nightly: $(INSTALLED)
	$(PYTEST) -m nightly $(BOTH)
	HYPOTHESIS_PROFILE=search $(PYTEST) $$(grep -rl 'from hypothesis' tests/unit)

# Lines and branches that tests run; then those that only `make nightly` does, one number a line.
coverage: $(INSTALLED)
	$(PYTEST) $(BOTH) --cov --cov-report=term:skip-covered --cov-report=json:coverage.json

coverage-nightly: coverage
	$(PYTEST) -m nightly $(BOTH) --cov --cov-report=json:coverage-nightly.json
	$(BIN)/python benchmarks/only_nightly.py coverage.json coverage-nightly.json

# The Markdown files as a site; a warning is an error.
docs: $(INSTALLED)
	$(BIN)/python -m sphinx -q -W --keep-going -c docs -b html . docs/_build/html
	@echo docs/_build/html/docs/index.html

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

check: lint types test

# The report's page and MLflow's own are tested in a real browser; without one those tests skip and say so.
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	{ timeout 300 apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install -y -qq chromium; }

clean:
	rm -rf $(VENV) build dist *.egg-info
