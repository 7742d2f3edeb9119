# Written for GNU Make 3.81, the one that macOS has.

# How many trials the study holds in all.
TRIALS := 100
# More flags for the command behind a target: make search ARGS='--data table.csv --target load'
ARGS :=
# Which Python .venv is made with; pyproject.toml says which versions will do.
PYTHON ?= python3
# Whose torch: `pinned` is that of constraints.txt, `installed` the one that PYTHON has already.
# A .venv stays what it was made as, so TORCH=installed is said once.
SEES_SITE_PACKAGES := $(shell sed -n 's/^include-system-site-packages = //p' .venv/pyvenv.cfg 2>/dev/null)
TORCH ?= $(if $(filter true,$(SEES_SITE_PACKAGES)),installed,pinned)

ifeq ($(TORCH),pinned)
  WANTS_SITE_PACKAGES := false
  CONSTRAINTS := constraints.txt
else ifeq ($(TORCH),installed)
  WANTS_SITE_PACKAGES := true
  VENV_FLAGS := --system-site-packages
  CONSTRAINTS := .venv/constraints.txt
else
  $(error TORCH must be pinned or installed: got TORCH=$(TORCH))
endif

.PHONY: help search ui test test-fast lint format another-kind-of-venv
.DELETE_ON_ERROR:

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile
	@echo "TRIALS=10 sets the count, ARGS='...' passes more flags; for PYTHON= and TORCH= see docs/install.md"

search: .venv/.installed  ## search the embedded data, or your own table: ARGS='--data table.csv'
	.venv/bin/python -m search.run --trials $(TRIALS) $(ARGS)

ui: .venv/.installed  ## open the MLflow pages of every search
	.venv/bin/python -m search ui $(ARGS)

test: .venv/.installed  ## run the whole test suite
	.venv/bin/python -m pytest --numprocesses auto --maxprocesses 2 --dist loadfile $(ARGS)

test-fast: .venv/.installed  ## run the tests that need no real Ray, server or browser
	.venv/bin/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 8 --dist worksteal $(ARGS)

lint: .venv/.installed  ## check format, style, types and security
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy
	.venv/bin/python -m bandit --quiet --configfile pyproject.toml --recursive models pipelines search

format: .venv/.installed  ## rewrite the source in the house's format
	.venv/bin/python -m ruff format .
	.venv/bin/python -m ruff check --fix .

.venv/.installed: pyproject.toml constraints.txt .venv/pyvenv.cfg
	@echo "Installing what constraints.txt names into .venv: minutes and gigabytes the first time, seconds later"
ifeq ($(TORCH),installed)
	@# The site's own version in place of the pin: pip then keeps it, or says why it cannot.
	@sed '/^torch==/d' constraints.txt >$(CONSTRAINTS)
	@.venv/bin/python -c "import importlib.metadata as m; print('torch==' + m.version('torch'))" >>$(CONSTRAINTS)
endif
	@# pip's progress is worth reading only when it fails: the reasons of a conflict are in it.
	@.venv/bin/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]' >.venv/install.log \
		|| { tail -n 20 .venv/install.log >&2; exit 1; }
	@touch $@

.venv/pyvenv.cfg: $(if $(filter $(WANTS_SITE_PACKAGES),$(SEES_SITE_PACKAGES)),,another-kind-of-venv)
	@command -v "$(PYTHON)" >/dev/null || { echo "no such Python: got PYTHON=$(PYTHON); name one that is there, as in PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c "$$CHECK_PYTHON" $(TORCH)
	@"$(PYTHON)" -m venv --clear $(VENV_FLAGS) .venv

# Read by whatever PYTHON is, so it is written for old ones too.
define CHECK_PYTHON
import io, re, sys
declared = next(line for line in io.open("pyproject.toml", encoding="utf-8") if line.startswith("requires-python"))
lowest, end = [tuple(map(int, version.split("."))) for version in re.findall("[0-9.]+", declared)]
if not lowest <= sys.version_info[:2] < end:
    sys.exit("Python from %d.%d up to, not including, %d.%d is needed: got %d.%d (%s); name another, as in PYTHON=python3.12"
             % (lowest + end + tuple(sys.version_info[:2]) + (sys.executable,)))
try:
    import ensurepip, venv
except ImportError:
    sys.exit("Python must be able to make virtual environments: %s has no venv; on Debian and Ubuntu: apt install python3-venv"
             % sys.executable)
if sys.argv[1] == "installed":
    from importlib import metadata
    if sys.prefix != sys.base_prefix:
        sys.exit("TORCH=installed needs a Python that is no virtual environment, for .venv cannot see into one: got %s; name another by PYTHON="
                 % sys.executable)
    try:
        metadata.version("torch")
    except metadata.PackageNotFoundError:
        sys.exit("TORCH=installed needs a Python that has torch: %s has none; name another by PYTHON=, or leave TORCH= out"
                 % sys.executable)
endef
export CHECK_PYTHON
