# Everything a checkout needs. `make help` lists the targets.
# The stamps live inside .venv, so deleting .venv is always a clean start and the tree stays clean.

PYTHON ?= python3
ARGS ?=
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
NATIVE := $(wildcard native/*.py native/cdef/* native/include/* native/src/*)
C_FILES := $(wildcard native/include/*.h native/src/*.c native/src/*.h native/tests/*.c native/tests/*.h native/fuzz/*.c bench/lab/*.c bench/lab/*.h tests/security/*.c)
PY_DIRS := novacron native tests bench docs setup.py

# pip of a developer may point at user-wide settings that break a virtual environment.
unexport PIP_USER PIP_TARGET PIP_PREFIX PYTHONHOME PYTHONPATH VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK := 1

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run install develop packages test lab test-lab bench lint format native-test fuzz docs lock wheel clean

help: ## Show this list.
	@echo 'Usage: make TARGET [ARGS="…"] [PYTHON=python3.12]'
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | while IFS='|' read -r target text; do \
	  printf '%-20s %s\n' "$$target" "$$text"; done

# `exec`: the node is make's own child, so a signal that reaches make reaches the node, make waits
# for its orderly stop, and a node that stopped cleanly makes `make run` succeed.
run: install $(VENV)/.stamp-bytecode ## Boot a node and serve until Ctrl-C. ARGS are passed on: make run ARGS="--help".
	@exec $(BIN)/python -m novacron.boot $(ARGS)

install: $(VENV)/.stamp-package ## Create .venv, install what is locked, build the C extension.

develop: $(VENV)/.stamp-develop $(VENV)/.stamp-package ## The same, with the tools tests and linters need.

packages: ## Install the Debian packages the tests use (as root; otherwise say what is missing).
	@tests/install-packages

test: packages develop ## Run every test. ARGS: make test ARGS="tests/boot -k rollback".
	@exec $(BIN)/python -m pytest -q -n $(JOBS) $(ARGS)

lab: packages develop ## Prepare the guest kernel of the tests (Debian; as root where packages are missing).
	@tests/lab/prepare

test-lab: lab ## Boot the guest kernel and run tests/lab/guest in it. ARGS: make test-lab ARGS="-k rxe".
	@exec $(BIN)/python -m tests.lab.machine $(ARGS)

bench: packages develop ## Measure. ARGS: make bench ARGS="boot --json" (boot, hde, acp; all: --help).
	@exec $(BIN)/python -m bench $(ARGS)

lint: develop ## Check style, types and layers of Python, and the format of C.
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/clang-format --dry-run -Werror $(C_FILES)

format: develop ## Rewrite Python and C in the project's style.
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/clang-format -i $(C_FILES)

native-test: ## Run the C unit tests: plain, under ASan and UBSan, and under TSan.
	@$(MAKE) -C native/tests test
	@$(MAKE) -C native/tests sanitize
	@$(MAKE) -C native/tests thread

fuzz: ## Fuzz the parsers of the C extension with clang. ARGS: make fuzz ARGS="RUNS=10000000".
	@$(MAKE) -C native/fuzz $(ARGS)

docs: develop ## Rewrite what is generated from the code: references, the schema's snapshot.
	@$(BIN)/python -m novacron.database.snapshot
	@$(BIN)/python -m novacron.config.reference >/dev/null
	@$(BIN)/python -m novacron.cli.reference >/dev/null
	@for generator in docs/generate/*.py; do $(BIN)/python "$$generator" || exit 1; done

# The development lock is resolved first and constrains the other: one version of everything.
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
  --no-emit-index-url --no-emit-find-links --no-header
lock: develop ## Resolve the lock files again after pyproject.toml changed; ARGS="--upgrade" moves on.
	@$(COMPILE) $(ARGS) --extra dev pyproject.toml -o requirements-dev.lock
	@$(COMPILE) --extra build -c requirements-dev.lock --no-annotate pyproject.toml -o requirements.lock

wheel: install ## Build a wheel into dist/.
	@$(PIP) wheel --quiet --no-deps --wheel-dir dist .

clean: ## Remove .venv and everything that was built.
	@rm -rf $(VENV) .lab build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@rm -rf novacron/_native/*.so native/_nc.c native/*.o native/tests/build native/fuzz/build
	@find novacron native tests bench docs -name __pycache__ -type d -prune -exec rm -rf {} +

# The interpreter the environment was made from may be gone since (an upgrade of the system): then
# the environment is made anew, and everything that depends on it.
ifeq ($(shell test -x $(BIN)/python || echo gone),gone)
.PHONY: $(VENV)/.stamp-python
endif
$(VENV)/.stamp-python:
	@command -v '$(PYTHON)' >/dev/null || { echo "make: there is no $(PYTHON) here. Install Python 3.11 or newer, or name one: make run PYTHON=/path/to/python" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$('$(PYTHON)' -V 2>&1), but Python 3.11 or newer is needed. Name another one: make run PYTHON=python3.12" >&2; exit 1; }
	@'$(PYTHON)' -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) cannot create virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo 'Creating the virtual environment .venv'
	@'$(PYTHON)' -m venv --clear $(VENV)
	@touch $@

$(VENV)/.stamp-runtime: requirements.lock $(VENV)/.stamp-python
	@echo 'Installing the locked dependencies'
	@$(PIP) install --quiet --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.stamp-develop: requirements-dev.lock $(VENV)/.stamp-runtime
	@echo 'Installing the locked development tools'
	@$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

# editable_mode=compat: a plain path entry. The default import hook costs every start milliseconds.
# The locked setuptools builds it, hence no isolated build environment to download.
$(VENV)/.stamp-package: pyproject.toml setup.py $(NATIVE) $(VENV)/.stamp-runtime
	@command -v "$${CC:-cc}" >/dev/null || { echo "make: there is no C compiler ($${CC:-cc}). On Debian and Ubuntu: apt install gcc; or name one: make run CC=clang" >&2; exit 1; }
	@$(BIN)/python -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { echo "make: the headers of $(PYTHON) (Python.h) are missing. On Debian and Ubuntu: apt install python3-dev" >&2; exit 1; }
	@echo 'Building the C extension'
	@$(PIP) install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
	@touch $@

# A start that has to compile its own sources takes a third longer, and an environment that forbids
# Python to write bytecode as it goes would make every start such a one.
$(VENV)/.stamp-bytecode: $(shell find novacron -name '*.py' 2>/dev/null) $(VENV)/.stamp-package
	@$(BIN)/python -m compileall -q -j 0 novacron
	@touch $@
