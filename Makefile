# `make help` lists what there is. Nothing but make and Python 3.11 to 3.13 is needed.
# PHOTOS is what `catdog fetch` takes: a folder, zip or tar, or drawn, filtered, petimages, auto.

PYTHON ?= python3
PHOTOS ?=
SWEEP ?= train_cnn.dropout=0.2,0.4
JOBS ?= 1
# Of the columns of `dvc exp show`, all but knobs and what a sweep is judged by.
KNOBS := (base|prepare|augment|train_cnn|train_xception|evaluate)
NOT_SWEPT := ^(?!Experiment|(cnn|xception)\.(accuracy|log_loss|train_seconds)$$|$(KNOBS)\.)
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Any shell but its own, or the make of macOS (3.81) would not look into this PATH.
SHELL := bash
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION ?= false
export MLFLOW_DISABLE_TELEMETRY ?= true
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help env run full sweep check test lint ui report promote serve demo bench jax lock clean

help:  ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: .venv/.ready  ## The environment alone: .venv, from requirements.lock

.venv/.ready: requirements.lock pyproject.toml
	@echo "environment: making .venv from requirements.lock (a minute or two)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"error: Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}; name another: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip sync --python $(BIN)/python --quiet --compile-bytecode --require-hashes requirements.lock
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m catdog.commands.plots_page .dvc/plots.html
	@$(BIN)/dvc config --local plots.html_template plots.html
	@touch $@

run: env  ## Environment, photographs (PHOTOS=...), pipeline, comparison
	@$(if $(PHOTOS),catdog fetch "$(PHOTOS)")
	@catdog mend
	@dvc repro
	@catdog compare

full: env  ## The same on Microsoft's 25,000 photographs (825 MB to download)
	@$(MAKE) run PHOTOS=petimages

sweep: env  ## Try knobs, every combination an experiment (SWEEP="train_cnn.dropout=0.2,0.4" JOBS=1)
	@catdog mend
	@dvc exp run --queue $(foreach knob,$(SWEEP),--set-param "$(knob)")
	@dvc exp run --run-all --jobs $(JOBS)
	@dvc exp show --only-changed --hide-workspace --no-pager --drop '$(NOT_SWEPT)'

check: env lint  ## Lint and the quick tests, as before each commit
	@python -m pytest -m "not slow"

test: env lint  ## All tests, after lint
	@python -m pytest

lint: env  ## ruff and mypy
	@ruff check .
	@ruff format --check .
	@mypy

ui: env  ## The MLflow UI on http://127.0.0.1:5000
	@catdog ui

report: env  ## Open reports/comparison.html
	@python -m webbrowser -t "file://$(CURDIR)/reports/comparison.html"

promote: env  ## Put the better model into use, if it passes the gates of params.yaml
	@catdog promote

serve: env  ## The champion as a server on http://127.0.0.1:5001
	@catdog serve

demo: env  ## A page on http://127.0.0.1:5002: drop a photograph, see both models' verdicts
	@catdog demo

bench: env  ## Every benchmark, an hour or more on an idle machine; figures into bench/results
	@set -e; for script in $$(grep -l __main__ bench/*.py); do echo "python $$script"; python $$script; done

jax: env  ## JAX beside TensorFlow, from requirements-jax.lock, for KERAS_BACKEND=jax
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --require-hashes --requirement requirements-jax.lock

lock: env  ## Renew the locks from pyproject.toml: all; what a server needs; what JAX adds
	@$(COMPILE) --extra dev --extra export --extra cluster --extra team pyproject.toml -o requirements.lock
	@$(COMPILE) --group serve --constraint requirements.lock -o requirements-serve.lock
	@echo jax | $(COMPILE) --constraint requirements.lock --no-annotate - -o requirements-jax.lock

clean:  ## Remove what the pipeline made; photographs in data/raw and mlflow.db stay
	rm -rf data/prepared data/augmented data/features data/checkpoints models dvc_plots
