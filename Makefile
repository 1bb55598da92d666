# Every target makes .venv from the lock by itself; a second run installs nothing.
# uv is used where it is on PATH; plain python3 and pip are enough.

PYTHON ?= python3
ARGS ?=
# processes that share the tests: three for two cores, because tests wait for a third of their time; for a selection of
# tests, one process is faster
JOBS ?= $(if $(ARGS),0,$(shell expr `getconf _NPROCESSORS_ONLN` \* 3 / 2))
UV := $(shell command -v uv 2>/dev/null)
BIN := .venv/bin
STAMP := .venv/.stamp
PYTEST = $(CLOCK) $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 4 --dist worksteal

# DAYS moves the wall clock of the tests and of their PostgreSQL
DAYS ?=
CLOCK = $(if $(DAYS),CAUCE_TEST_DAYS=$(DAYS) LD_PRELOAD=$(CURDIR)/build/clock.so)

# the oldest supported PostgreSQL that is installed, and the tests that use a database
OLDER := $(firstword $(sort $(wildcard /usr/lib/postgresql/1[567]/bin)))
OLDER_TESTS = $(addprefix tests/,integration/engine integration/plans integration/web integration/test_operations.py \
  acceptance/test_crashes.py)

.PHONY: help demo test test-15 mutants check docs bench soak lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "  %-12s %s\n", $$1, $$2 }'

demo: $(STAMP) ## see an event travel, on an embedded PostgreSQL
	@$(BIN)/cauce demo $(ARGS)

test: $(STAMP) $(if $(DAYS),build/clock.so) ## run the tests (ARGS='-k word', JOBS=2, DAYS=400 to move the clock)
	@$(PYTEST) $(ARGS)

build/clock.so: tests/clock.c
	@mkdir -p $(@D)
	@$(CC) -shared -fPIC -O2 -o $@ $<

test-15: $(STAMP) ## run the database tests on Debian's PostgreSQL 15, if it is installed
ifeq ($(OLDER),)
	@echo "skipped: there is no PostgreSQL 15, 16 or 17 in /usr/lib/postgresql; apt-get install postgresql-15" >&2
else
	@$(OLDER)/postgres --version
	@CAUCE_TEST_DATABASE_URL= CAUCE_TEST_POSTGRES_BIN=$(OLDER) $(PYTEST) $(OLDER_TESTS) $(ARGS)
endif

mutants: $(STAMP) ## remove each guard in turn; a test must fail (ARGS='-k word -j 2')
	@$(BIN)/python -m tests.mutants $(ARGS)

check: $(STAMP) ## lint, format, types, import contracts
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports

docs: $(STAMP) ## build the documentation site in build/site; a dead link is an error
	@$(BIN)/zensical build --strict --config-file zensical.toml
	@$(BIN)/zensical build --strict --config-file zensical.es.toml

bench: $(STAMP) ## measure (ARGS='--help')
	@$(BIN)/python -m benchmarks $(ARGS)

soak: $(STAMP) ## run the long tests
	@$(BIN)/python -m pytest -m soak $(ARGS)

lock: .venv ## write requirements/dev.txt again (ARGS='--upgrade')
	@uv="$(UV)"; \
	if [ -z "$$uv" ]; then $(BIN)/python -m pip install --quiet --upgrade --target build/uv uv && uv=build/uv/bin/uv; fi; \
	$$uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --strip-extras \
	  --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  --all-extras pyproject.toml requirements/dev.in --output-file requirements/dev.txt $(ARGS)

clean: ## remove what the targets made
	rm -rf .venv build dist .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

ifneq ($(UV),)
INSTALL := $(UV) pip install --quiet --python .venv

.venv:
	@$(UV) venv --quiet --no-project --python '>=3.11' .venv
else
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Cauce needs Python 3.11 or newer; here is $$($(PYTHON) -V 2>&1). Say which: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make a virtual environment. Install it: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
endif

$(STAMP): requirements/dev.txt pyproject.toml | .venv
	@echo "installing the locked dependencies into .venv" >&2
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@$(INSTALL) --no-build-isolation --no-deps -e .
	@touch $@
