# Everything runs in .venv, which is made when it is missing. PYTHON chooses the interpreter (3.11 or later), PROCESSES
# how many processes run the tests: auto is one for each core, 8 at most.
PYTHON ?= python3
PROCESSES ?= auto
BIN := .venv/bin

.PHONY: demo test test-fast check format docs clean

## demo: draw people, train on them, evaluate, watch cameras, search; then open reprism-demo/report.html (6 minutes)
demo: .venv/installed
	$(BIN)/reprism demo

## test: run all tests, in PROCESSES at a time
test: .venv/installed-dev
	$(BIN)/python -m pytest -n $(PROCESSES)

## test-fast: run the tests that are not marked slow
test-fast: .venv/installed-dev
	$(BIN)/python -m pytest -n $(PROCESSES) -m 'not slow'

## check: format, lint, types, import layers
check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## format: rewrite the sources as check wants them
format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## docs: build the site in site/, strictly
docs: .venv/installed-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv reprism-demo site

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Reprism needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[search]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --editable '.[docs]'
	touch $@
