# Two commands are all a fresh machine needs: `make demo` and `make test`. Both create .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test nightly docs lint types check install browser clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, then train and compare the backward strategies on embedded data (6 to 10 minutes)"
	@echo "make test    set up, then run the tests"
	@echo "make nightly set up, then run the long tests"
	@echo "make check   lint, types and tests"
	@echo "make docs    set up, then build the documentation in docs/_build/html"

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	-$(BIN)/python -m pip install --quiet --upgrade pip  # an old one searches for minutes
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/ovos-ray demo $(ARGS)

# What starts no Ray cluster runs on two processes, file by file; then the rest, which shares one cluster.
test: $(INSTALLED)
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -m "not ray" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m ray
endif

# The Markdown files as a site; a warning is an error.
docs: $(INSTALLED)
	$(BIN)/python -m sphinx -q -W --keep-going -c docs -b html . docs/_build/html
	@echo docs/_build/html/docs/index.html

# Long runs: what leaks a little at a time.
nightly: $(INSTALLED)
	$(BIN)/python -m pytest -m nightly

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
