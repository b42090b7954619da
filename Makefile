# Only make and Python 3.11 or 3.13 need to be there. PYTHON=... chooses another one.
.PHONY: estimate-tools environment demo demo-image notebook test test-all test-pi test-pi-machine lint types wheel check constraints clean help

PYTHON ?=
CAMERA ?= demo
FRAMES ?= 180
DATA ?= fer2013.csv
VENV ?= .venv
DEMO_VENV ?= .venv-demo
PYTEST = $(VENV)/bin/python -m pytest

# An environment is ready for the Python it was asked for; it is renewed when its needs change.
ready = ready$(if $(PYTHON),-$(notdir $(PYTHON)))
needs = pyproject.toml .ci/make-venv $(wildcard .ci/constraints-*.txt edge/constraints-*.txt)

as_root = $(if $(filter-out 0,$(shell id -u)),sudo)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

demo: $(DEMO_VENV)/$(ready) ## the shipped model on a demo camera (CAMERA=auto: on yours)
	@$(DEMO_VENV)/bin/emotion-edge demo --camera $(CAMERA) --frames $(FRAMES)

demo-image: $(VENV)/$(ready) ## edge/images/demo.gif, the moving image of the README
	$(VENV)/bin/python edge/images/make_demo.py

notebook: $(VENV)/$(ready) ## run train/notebooks/quickstart.ipynb and store its outputs (DATA=...)
	$(VENV)/bin/python train/notebooks/make_quickstart.py --data $(DATA)

environment: $(VENV)/$(ready) ## everything a developer needs

test: $(VENV)/$(ready) ## the tests, minutes
	$(PYTEST) -m "not slow"

test-all: $(VENV)/$(ready) ## every test, the slow ones too
	$(PYTEST)

test-pi: wheel ## the wheel on emulated Raspberry Pi processors (Debian, root; see tests/pi)
	$(as_root) $(VENV)/bin/python -B -m tests.pi.prove --wheel dist/emotion_edge-*.whl \
		$(if $(PARTS),--parts $(PARTS)) $(if $(SUITES),--suites $(SUITES)) \
		$(if $(CPUS),--cpus $(CPUS))

test-pi-machine: wheel ## a whole emulated machine: camera, service, watchdog (see tests/pi)
	$(as_root) $(VENV)/bin/python -B -m tests.pi.machine --wheel dist/emotion_edge-*.whl \
		$(if $(CPU),--cpu $(CPU)) $(if $(STEPS),--steps $(STEPS)) $(if $(QUICK),--quick)

estimate-tools: $(VENV)/$(ready) ## QEMU and an arm64 Python for `benchmarks estimate`, once (Debian)
	benchmarks/estimation/build-tools $(VENV)/bin/python

lint: $(VENV)/$(ready) ## ruff: rules and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/$(ready) ## mypy, strict
	$(VENV)/bin/mypy

check: lint types test ## what a change must pass

wheel: $(VENV)/$(ready) ## dist/emotion_edge-*.whl, the int8 models inside
	rm -rf dist
	$(VENV)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

constraints: ## resolve again; writes the file of PYTHON's version
	.ci/make-constraints $(PYTHON)

clean: ## what make made
	rm -rf $(VENV) $(DEMO_VENV) dist build demo .mypy_cache .ruff_cache .pytest_cache

$(VENV)/$(ready): $(needs)
	@.ci/make-venv $(VENV) dev $(PYTHON)
	@$(VENV)/bin/emotion-edge detectors get yunet --optional
	@touch $@

$(DEMO_VENV)/$(ready): $(needs)
	@.ci/make-venv $(DEMO_VENV) demo $(PYTHON)
	@$(DEMO_VENV)/bin/emotion-edge detectors get yunet --optional
	@touch $@
