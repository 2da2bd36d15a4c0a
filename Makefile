# Everything lives in .venv. Versions are those of requirements.lock, which CI runs too.
PYTHON ?= python3
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check
RUN := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false .venv/bin/python

.PHONY: help demo test test-all test-trl check docs format lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 12

STEPS ?= 120
demo: .venv/installed  ## train the tiny captioner on drawn scenes and show before | after
	.venv/bin/trl-balcap demo --steps $(STEPS)

TESTS ?=
test: .venv/installed-dev  ## the suite, at most 10 minutes on 2 cores; or TESTS=tests/test_gating.py
	$(RUN) -m pytest -q -rs -n 2 --dist worksteal $(TESTS)

test-all: .venv/installed-dev  ## the slow tests too
	$(RUN) -m pytest -q -n 2 --dist worksteal -m "slow or not slow"

TRL ?= 1.14.2
test-trl: .venv/installed-dev  ## the trainer's tests under the lowest TRL (or TRL=1.16.0, ...)
	$(PIP) --no-deps --upgrade --target .venv/trl-$(TRL) "trl==$(TRL)"
	PYTHONPATH=.venv/trl-$(TRL) $(RUN) -m pytest -q -n 2 --dist worksteal \
	  tests/test_trl_seam.py tests/test_trainer.py tests/test_gating.py tests/rewards

check: .venv/installed-dev  ## lint, format, types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/basedpyright

docs: .venv/installed-dev  ## the docs as a site in site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

format: .venv/installed-dev  ## fix what ruff can
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

lock: .venv/installed-dev  ## write down the versions that are installed
	.venv/bin/python -m pip freeze --exclude-editable --exclude trl-balcap > requirements.lock

clean:  ## remove what make has installed
	rm -rf .venv

.venv/python: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "trl-balcap needs Python 3.11 or newer, and $(PYTHON) is older. Name another: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) "pip==25.3"
	touch $@

.venv/installed: .venv/python pyproject.toml
	$(PIP) --constraint requirements.lock --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --constraint requirements.lock --editable . --group dev
	touch $@
