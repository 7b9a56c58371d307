# One command to start: `make demo`. `make help` lists the rest.
#
# Everything lives in .venv inside the checkout. A stamp file in it says what has been installed, so a second run starts
# at once; changing pyproject.toml or constraints.txt installs again. Name another interpreter with PYTHON=python3.12.

.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
WORKERS ?= auto
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# One thread per process: the tests run side by side, and sums come out the same on every machine.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1
# The plugin checks the array shapes written in signatures.
PYTEST := $(ONE_THREAD) PYTHONPATH=tests $(BIN)/pytest -p shape_check -n $(WORKERS)
SETUP := pyproject.toml constraints.txt

.PHONY: help demo test check check-all format lint types imports tests docs bench peers clean

help:
	@echo "make demo       install, then learn, evaluate and explain surv-digits and write runs/demo/report.html"
	@echo "make test       install the developer tools, then lint, types, import contracts and tests"
	@echo "make check      make test, and the documentation with warnings as errors"
	@echo "make check-all  make check, and the truth checks that take minutes"
	@echo "make docs       build docs/_build/html"
	@echo "make bench      time survlens beside its peers, into benchmarks/results"
	@echo "make peers      install the peers into .venv-peers"
	@echo "make clean      remove caches and built documentation; keeps .venv and runs/"

# --- what a user runs ---------------------------------------------------------------------------------------------

demo: .venv/.user
	@$(BIN)/survlens demo --out runs/demo

# --- what a developer runs ----------------------------------------------------------------------------------------

test: lint types imports tests

check: lint types imports docs tests

check-all: check
	@$(PYTEST) -m slow

format: .venv/.developer
	@$(BIN)/ruff check --quiet --fix . && $(BIN)/ruff format --quiet .

lint: .venv/.developer
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && echo "lint      ok"

types: .venv/.developer
	@$(BIN)/basedpyright --level error && echo "types     ok"

imports: .venv/.developer
	@$(BIN)/lint-imports --no-cache >.venv/imports.log || { cat .venv/imports.log; exit 1; }
	@echo "imports   ok"

docs: .venv/.developer
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs      ok: docs/_build/html/index.html"

tests: .venv/.developer
	@$(PYTEST) -m "not slow"

bench: .venv-peers/.peers
	@for work in cox_loss concordance brier bootstrap metabric_epoch; do \
	  .venv-peers/bin/python benchmarks/$$work.py || exit 1; done

peers: .venv-peers/.peers

clean:
	rm -rf .pytest_cache .ruff_cache .hypothesis docs/_build docs/api build dist
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments -------------------------------------------------------------------------------------------------

# The first interpreter that starts and is new enough: a name on the path may be a shim for nothing.
define FIND_PYTHON
found=; for python in $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11); do \
  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
done; \
if [ -z "$$found" ]; then \
  echo "survlens needs Python 3.11 or newer; found none under the names: $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11)." >&2; \
  echo "Install one, or name yours: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3" >&2; \
  exit 1; \
fi
endef

define ANNOUNCE
echo "First run: installing into .venv, once. This takes some minutes and says nothing meanwhile."; \
echo "It downloads about $(1) MB from your package index: about 190 MB of it is PyTorch where the index offers a CPU build."; \
echo "Where it offers only the CUDA build (plain PyPI on Linux), several GB. To take the CPU build instead:"; \
echo "  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make $(or $(MAKECMDGOALS),demo)"
endef

.venv/bin/python:
	@$(FIND_PYTHON); "$$found" -m venv .venv || { rm -rf .venv; exit 1; }

.venv/.user: $(SETUP) | .venv/bin/python
	@[ -e .venv/.user ] || { $(call ANNOUNCE,430); }
	@$(INSTALL) -e '.[baselines]'
	@touch .venv/.user

.venv/.developer: $(SETUP) | .venv/bin/python
	@if [ -e .venv/.user ]; then echo "Installing the developer tools into .venv: about 110 MB."; else $(call ANNOUNCE,550); fi
	@$(INSTALL) -e '.[baselines,dev]'
	@touch .venv/.user .venv/.developer

.venv-peers/bin/python:
	@$(FIND_PYTHON); "$$found" -m venv .venv-peers || { rm -rf .venv-peers; exit 1; }

# PyTorch first: torchtuples and torchsurv would take any release.
.venv-peers/.peers: benchmarks/requirements.txt $(SETUP) | .venv-peers/bin/python
	@echo "Installing the peers into .venv-peers: about 450 MB, most of it PyTorch."
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-r benchmarks/requirements.txt -e .
	@touch .venv-peers/.peers
