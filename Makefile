# A fresh clone needs python3 (3.11, 3.12 or 3.13, with venv) and make.

PYTHON ?=
export PYTHON
IN_VENV := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help run test test-slow lint venv clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

run: venv ## learn Connect Four by self-play: the main job
	$(IN_VENV) -m experiments.alphazero --preset=laptop --workdir=runs/alphazero

# A file of tests stays in one process: they share compiled programs.
test: venv ## run the tests
	$(IN_VENV) -m pytest -n 2 --dist loadfile

# As users run it: with all of XLA's optimisations.
test-slow: venv ## run the tests that take minutes each
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 XLA_FLAGS= $(IN_VENV) -m pytest -m slow

lint: venv ## check style, format and types
	$(IN_VENV) -m ruff check
	$(IN_VENV) -m ruff format --check
	$(IN_VENV) -m pyrefly check

venv: ## make .venv from requirements.lock
	@sh scripts/venv.sh

clean: ## remove .venv and what tools leave behind; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
