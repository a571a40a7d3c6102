# One gate: `make check`. It needs .venv/ (bash deploy/setup.sh install, or test, makes it).
PYTHON ?= .venv/bin/python
PYTEST ?= $(PYTHON) -m pytest
PROGRAMS = policy resolver enforcer
CHECKED = $(PROGRAMS) tests benchmarks
COMPILED_TESTS = tests/policy tests/resolver tests/scenarios tests/property tests/fuzz

.PHONY: check fmt format lint imports types compiled test pure e2e wheel coverage bench bench-quick golden docs demo clean

check: format lint imports types compiled test pure

fmt:
	$(PYTHON) -m ruff format $(CHECKED)
	$(PYTHON) -m ruff check --fix $(CHECKED)

format:
	$(PYTHON) -m ruff format --check $(CHECKED)

lint:
	$(PYTHON) -m ruff check $(CHECKED)

imports:
	$(dir $(PYTHON))lint-imports

types:
	$(PYTHON) -m mypy
	$(PYTHON) -m mypy --explicit-package-bases -p benchmarks

# The hot modules by mypyc; a build that fits the sources is not made again (docs/adr/0017).
compiled:
	$(PYTHON) deploy/compile.py

test:
	$(PYTEST) -m "not e2e"

# The sources of what is compiled, by the same tests.
pure:
	NAMEWARD_PURE=1 $(PYTEST) -q -m "not kernel and not cluster" $(COMPILED_TESTS)

e2e:
	CLUSTER=required $(PYTEST) -v -m e2e tests/e2e tests/image

wheel:
	$(PYTEST) -q tests/meta/test_packaging.py

coverage:
	$(PYTEST) -m "not kernel" --cov=policy --cov=resolver --cov=enforcer --cov-branch --cov-report=term:skip-covered

# Beside the peers (bash deploy/setup.sh bench installs them): a quarter of an hour; two minutes. What is measured is
# what is installed: compiled, unless NAMEWARD_PURE=1 asks for the sources.
ifneq ($(NAMEWARD_PURE),1)
bench bench-quick: compiled
endif

bench:
	$(PYTHON) -m benchmarks

bench-quick:
	$(PYTHON) -m benchmarks --quick

golden:
	NAMEWARD_WRITE_GOLDEN=1 $(PYTEST) -q -m "not kernel" tests/enforcer/test_ruleset.py tests/enforcer/test_bridge.py tests/obot/test_provider_renders.py tests/charts

docs:
	$(PYTHON) -m policy.runtime.settings_page > docs/configuration.md
	$(PYTHON) -m policy.runtime.settings_schema deploy/charts/nameward/values.schema.json

demo:
	$(dir $(PYTHON))nameward demo

clean:
	rm -rf build dist htmlcov .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
