.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE_IMAGE ?= docker.io/library/python:3.11-slim-bookworm
STAMP := $(VENV)/.installed

help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(STAMP) ## make .venv with everything pinned

demo: $(STAMP) ## a consortium of 8 firms on this machine, real processes, about two minutes
	$(BIN)/greylag-lab demo

test: $(STAMP) ## the tests of every change, about 13 minutes
	$(BIN)/pytest -n 2

test-slow: $(STAMP) ## an hour: offline installation, wrong clocks and disks, a scan for secrets, 200 kills
	GREYLAG_KILLS=200 $(BIN)/pytest -m slow

coverage: $(STAMP) ## the protocol core's own tests reach every branch of it
	COVERAGE_FILE=$(VENV)/.coverage $(BIN)/pytest tests/protocols --cov=greylag_protocols --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=100

fuzz: $(STAMP) ## five minutes of coverage-guided fuzzing of every parser of outside bytes
	$(BIN)/python tests/fuzz/run.py --seconds 300

lint: $(STAMP) ## style, types, trust graph
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 -p greylag_client -p greylag_protocols
	$(BIN)/lint-imports

bench: $(STAMP) ## measured figures, as JSON and a table
	$(BIN)/python tests/bench/run.py

bench-utility: $(STAMP) ## hours: what models are worth at each epsilon, beside their rivals
	$(BIN)/python tests/bench/utility.py --plot utility.svg > utility.json

bench-scale: $(STAMP) ## half an hour: 10 to 200 real agents over mutual TLS, and how a round grows
	$(BIN)/python tests/bench/scale.py

wheelhouse: $(STAMP) ## dist/wheelhouse: the client with hashes and an SBOM, to install offline
	$(BIN)/python -m offline.wheelhouse dist/wheelhouse

wheelhouse-windows: $(STAMP) ## the same for Windows, as dist/wheelhouse-windows
	$(BIN)/python -m offline.wheelhouse --windows dist/wheelhouse-windows

image-server image-client: image-%: $(STAMP) ## a container image of one program, by podman, from its wheelhouse
	$(BIN)/python -m offline.wheelhouse --extra $* dist/$*/wheelhouse
	podman build --build-arg BASE=$(BASE_IMAGE) --target $* --tag greylag-$* -f deploy/container/Containerfile dist/$*

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: help install demo test test-slow coverage fuzz lint bench bench-utility bench-scale wheelhouse wheelhouse-windows image-server image-client clean
