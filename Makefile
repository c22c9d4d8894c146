# make demo | test | test-all | check | docs | bench | clean. Needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all check docs bench clean

# Else every process would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

demo: .venv/.ready
	$(BIN)/denature demo --overwrite

# Three processes on two cores: tests wait for servers, clocks and disks a seventh of their time.
test: .venv/.ready-dev
	$(BIN)/python -m pytest -q -n 3 --dist worksteal

# One call for quick and slow tests: each collects for ten seconds, and ends with an idle worker.
# Tests that start processes on all cores come last, those of one file in their order.
test-all: .venv/.ready-dev
	$(BIN)/python -m pytest -q -n 3 --dist worksteal -m "not alone"
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m alone $$(grep -l mark.alone tests/*.py)

check: .venv/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory docs

# The site, in site/; the variable silences a notice on the theme's future (docs/decisions/0035).
docs: .venv/.ready-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/.ready-dev
	$(BIN)/python -m benchmarks.engine --json results/engine-cpu.json
	$(BIN)/python -m benchmarks.wire --json results/wire-cpu.json
	$(BIN)/python -m benchmarks.gateway --json results/gateway-cpu.json
	$(BIN)/python -m benchmarks.attacks --json results/attacks-cpu.json
	$(BIN)/python -m benchmarks.defenses --json results/defenses-cpu.json
	$(BIN)/python -m benchmarks.audit_speed --json results/audit_speed-cpu.json

# The stamp is written last: an installation that was interrupted is done again. Of the developers'
# many modules few are imported; those are compiled then, which took a minute for all.
.venv/.ready: INSTALLED = .
.venv/.ready-dev: INSTALLED = '.[dev]' --no-compile
.venv/.ready .venv/.ready-dev: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "denature needs Python 3.11 or newer; say which with make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing torch and what else denature needs into .venv: about a gigabyte, a few minutes."
	$(INSTALL) -e $(INSTALLED)
	touch $@

clean:
	rm -rf .venv runs site
