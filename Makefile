# Every target sets itself up: the first call makes .venv, later calls find it fresh. PYTHON=/path/to/python picks the interpreter.
SHELL = /bin/sh
PY = .venv/bin/python
ARGS =

.PHONY: help setup setup-dev run demo test slow tamper crash image coverage mutants check lint lint-rules lint-format \
    lint-types lint-imports format lock audit bench bench-growth docs-pictures clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 22

setup: ## make .venv with the product alone
	@tools/venv run

setup-dev: ## make .venv with what tests and checks it too
	@tools/venv dev

run: setup ## start a development server on 127.0.0.1:8000
	@tools/run

demo: setup ## the whole tour, on a vault of its own; ends by itself
	@.venv/bin/kvl quickstart

test: setup-dev ## the test suite (ARGS= goes to pytest)
	@tools/devices
	@$(PY) -m pytest -n 2 --dist worksteal $(ARGS)

slow: setup-dev ## the tests that take long
	@$(PY) -m pytest -n 2 --dist worksteal -m slow $(ARGS)

tamper: setup-dev ## the tamper campaign: every stored byte changed must be found
	@$(PY) -m pytest -m campaign $(ARGS) tests/suites/tamper

crash: setup-dev ## the crash campaign: kill -9 by the hundred, full and failing disks; no promise may break
	@$(PY) -m pytest -n 2 --dist worksteal -m "crash or not crash" $(ARGS) tests/suites/crash

image: setup-dev ## the container image, built and run (needs Docker and its base image)
	@$(PY) -m pytest -m image $(ARGS) tests/project/deploy

coverage: setup-dev ## the suite, with every branch of the judging layers required
	@$(PY) -m pytest -n 2 --dist worksteal --cov --cov-report= $(ARGS)
	@$(PY) -m coverage report --fail-under=100 \
	    --include='*/keyvault_lite/model/*,*/keyvault_lite/access/*,*/keyvault_lite/audit/*,*/keyvault_lite/crypto/*,*/keyvault_lite/engine/*'

mutants: setup-dev ## mutation testing: each small wrong change must make a test fail (ARGS=--all: all, not a sample)
	@$(PY) -m tools.mutants $(ARGS)

check: lint ## everything a change must pass
	@$(PY) -m pytest -n 2 --dist worksteal $(ARGS)

lint: lint-rules lint-format lint-types lint-imports ## the static checks alone

lint-rules: setup-dev
	@$(PY) -m ruff check .

lint-format: setup-dev
	@$(PY) -m ruff format --check .

lint-types: setup-dev
	@$(PY) -m mypy src tests $(wildcard main.py benchmarks tools/*.py)

lint-imports: setup-dev
	@.venv/bin/lint-imports --no-logo

format: setup-dev ## rewrite the sources as the checks want them
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

lock: ## write requirements.lock anew, from the newest releases that pyproject.toml allows
	@tools/lock

audit: ## look up the packages of requirements.lock among known vulnerabilities (needs the network)
	@tools/audit $(ARGS)

bench: setup ## encryptions a second, beside a bare server in the same run
	@$(PY) -m benchmarks.run $(ARGS)

bench-growth: setup ## how speed changes as keys, entries and versions grow (ARGS=--full or --huge: larger)
	@$(PY) -m benchmarks.growth $(ARGS)

docs-pictures: ## redraw docs/*.png from docs/pictures/*.dot (needs Graphviz)
	@command -v dot >/dev/null || { echo 'docs-pictures needs dot: install the package graphviz.' >&2; exit 1; }
	@for source in docs/pictures/*.dot; do \
	    dot -Tpng -Gdpi=144 "$$source" -o "docs/$$(basename "$$source" .dot).png" || exit 1; done

clean: ## remove what can be made again (.kvl stays: it holds keys)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis .mutants build dist htmlcov
	rm -f .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
