# `make help` lists the commands. Everything sets itself up: Python 3.11 or newer and make are all it takes.
# PYTHON=/path/to/python3.13 chooses the interpreter of a new .venv; ARGS="..." reaches the program that is run.

ENV := .venv
RUN := $(ENV)/bin
PIP := python -m pip --disable-pip-version-check install -qq

# Make a virtual environment $(1) with Python $(2), or with the newest there is, unless it is there and runs.
define environment
@$(1)/bin/python -c '' 2>/dev/null || { \
	found=$$(tools/pythons) && set -- $$(echo "$$found" | grep '^$(2)' | head -n 1) && \
	echo "everloop: creating $(1) with Python $$1 ($$2)" && "$$2" -m venv --clear $(1); }
endef

.PHONY: help
help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 13

.PHONY: demo
demo: $(ENV)/.runtime ## fetch pages at once as durable tasks; ARGS="--kill" kills the worker half-way
	@$(RUN)/everloop demo $(ARGS)

.PHONY: check
check: $(ENV)/.dev ## format, lint, types, layers, sizes, documentation, unit tests: under a minute
	@$(RUN)/python tools/check.py

.PHONY: test
test: $(ENV)/.dev ## everything, on each Python that is installed
	@$(RUN)/python tools/servers.py
	@own=$$(sed -n 's/^version = \(3\.[0-9]*\).*/\1/p' $(ENV)/pyvenv.cfg); \
	for version in $$(tools/pythons | sed 's/ .*//'); do \
		[ "$$version" = "$$own" ] || $(MAKE) --no-print-directory $(ENV)-$$version/.test || exit 1; done
	@$(RUN)/python tools/check.py --all

.PHONY: test-matrix
test-matrix: $(ENV)/.runtime ## as root: on Python 3.14, PostgreSQL 18 and MySQL 9, in a folder with Debian sid
	@$(RUN)/python tools/matrix.py $(ARGS)

.PHONY: bench
bench: $(ENV)/.dev ## measure the speed, beside the machine's limits; ARGS="--check" compares the ratios
	@$(RUN)/python -m bench $(ARGS)

.PHONY: coverage
coverage: $(ENV)/.dev ## which lines and branches the measured suites reach; fails where `make test` would
	@$(RUN)/python tools/servers.py
	@$(RUN)/python tools/covered.py

.PHONY: mutants
mutants: $(ENV)/.dev ## sabotage the code in many small ways, and see that the tests notice; ARGS="words of its name"
	@$(RUN)/python tools/mutants.py $(ARGS)

.PHONY: soak
soak: $(ENV)/.dev ## the long versions of the tests; writes docs/evidence; ARGS="kills outage mutants"
	@$(RUN)/python tools/servers.py
	@$(RUN)/python tools/soak.py $(ARGS)

.PHONY: format
format: $(ENV)/.dev ## put the code into the one format, and mend what ruff can mend
	@$(RUN)/ruff check --fix-only --quiet
	@$(RUN)/ruff format --quiet

.PHONY: clean
clean: ## remove the environments and all that was generated
	rm -rf .venv .venv-* build dist .coverage* .grimp_cache .hypothesis .import_linter_cache .mypy_cache
	rm -rf .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(ENV)/.runtime: pyproject.toml
	$(call environment,$(ENV),)
	@echo "everloop: installing the package"
	@$(RUN)/$(PIP) --editable '.[cli,fast,sql]'
	@touch $@

$(ENV)/.dev: $(ENV)/.runtime
	@echo "everloop: installing the tools of the tests"
	@$(RUN)/$(PIP) 'pip>=25.1'
	@$(RUN)/$(PIP) --editable '.[all]' --group dev
	@touch $@

$(ENV)-%/.test: pyproject.toml
	$(call environment,$(ENV)-$*,$* )
	@echo "everloop: installing the package and the tests for Python $*"
	@$(ENV)-$*/bin/$(PIP) 'pip>=25.1'
	@$(ENV)-$*/bin/$(PIP) --editable '.[all]' --group test
	@touch $@
