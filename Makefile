# Every command sets itself up: a fresh clone needs git, make, gcc and Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find host sdk registry cython_core skills -type f -not -name '*.so' -not -name '*.c' -not -path '*/__pycache__/*') $(wildcard sdk/guest/c/*.c) setup.py pyproject.toml

.PHONY: setup dev demo test lint bench docs deb clean
.DELETE_ON_ERROR:

setup: $(VENV)/.installed

# The virtual environment holds a real installation, not a link to the tree: a node compares its files with what was installed.
$(VENV)/.installed: $(SOURCES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit("snapcount needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@echo "installing snapcount into $(VENV) …"
	@rm -rf build
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade .
	@touch $@

# What development needs beyond that: linters, the test runner, and the guest compiler (ziglang unpacks to 400 MB).
dev: $(VENV)/.development

$(VENV)/.development: $(VENV)/.installed pyproject.toml
	@echo "installing the development tools into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check ".[dev,guests]"
	@touch $@

demo: setup
	@$(BIN)/snapcount demo

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest

bench: dev
	$(BIN)/python benchmarks/skill_call.py --json
	$(BIN)/python benchmarks/arrival.py --json
	$(BIN)/python benchmarks/impedance.py --json
	$(BIN)/python benchmarks/mesh_virtual.py --json
	$(BIN)/snapcount mesh bench --agents 30000 --strategy wave --json
	$(BIN)/snapcount mesh bench --agents 3000 --profile classes --window-ms 500 --json
	$(BIN)/snapcount mesh bench --profile heartbeats --json
	$(BIN)/snapcount mesh bench --agents 300 --profile flood --window-ms 500 --json
	$(BIN)/python benchmarks/push.py --nodes 1000 --size-mib 1 --json
	$(BIN)/python benchmarks/quarantine.py --json
	$(BIN)/snapcount rollout simulate --nodes 30000 --generations 6 --offline 0.1 --json
	$(BIN)/python benchmarks/languages.py --json
	$(BIN)/python benchmarks/grbl.py --json

# The guide, as HTML in build/docs. Whatever refers to nothing is an error, and nothing is fetched but the generator itself.
docs: $(VENV)/.guide
	$(BIN)/sphinx-build -q -W --keep-going -n -b html docs build/docs
	@echo "the guide is in build/docs/index.html"

$(VENV)/.guide: $(VENV)/.installed pyproject.toml
	@echo "installing the guide's generator into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check ".[docs]"
	@touch $@

# dist/snapcount_VERSION_ARCH.deb, for Debian's own Python of this release; docs/install.md says how to install it.
deb:
	@/usr/bin/python3 -c 'import sys; sys.exit("the package needs Python 3.11 or newer, and /usr/bin/python3 is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@/usr/bin/python3 packaging/deb/build.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis cython_core/*.so cython_core/direct.c cython_core/strict.c
