# The only list of commands. `make demo` and `make test` need nothing but Python 3.11 or newer.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check conformance fuzz chaos performance live format lock

bin := .venv/bin
# Twice the cores: a test of a whole call mostly waits, in the call's own time.
workers := $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN || echo 2))))

help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup:           ## make .venv as requirements.lock pins it
	@scripts/setup

demo: setup      ## place a whole call here; ARGS=--crash kills the bridge in mid-call, ARGS=--keep leaves it running
	@$(bin)/stayline demo $(ARGS)

test: setup      ## all tests, with coverage; ARGS="-k name" for some
	@$(bin)/pytest -n $(workers) --cov --cov-report=term:skip-covered $(ARGS)

check: setup     ## format, lint, types, import rules
	@$(bin)/ruff format --check .
	@$(bin)/ruff check .
	@$(bin)/mypy
	@$(bin)/lint-imports

conformance: setup ## put every provider to its suite, and write docs/conformance.md
	@$(bin)/pytest -q -n auto tests/conformance --deselect tests/conformance/test_table.py
	@$(bin)/python -m tests.conformance.table

fuzz: setup      ## some million odd inputs; FUZZ_EXAMPLES=100 for fewer of them
	@FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-2500} nice $(bin)/pytest -q tests/fuzz $(ARGS)

chaos: setup     ## a thousand calls, and all that can go wrong under them; ARGS="--calls 100 --seed 7"
	@$(bin)/pip install --quiet "libfaketime>=3" || echo "Without libfaketime the clock does not jump (it is built with gcc)."
	@$(bin)/python -m tests.chaos.run $(ARGS)

performance: setup ## tables and plots of docs/performance.md, of what benchmarks/results holds
	@$(bin)/python -m benchmarks.report

live: setup      ## put the vendors themselves to the suites, where there are keys; costs a little
	@$(bin)/pytest -m live tests/live $(ARGS)

format: setup    ## put the code in order
	@$(bin)/ruff check --fix .
	@$(bin)/ruff format .

lock: setup      ## pin anew what pyproject.toml asks for (needs uv)
	@uv pip compile pyproject.toml --extra vad --extra offline --extra dev --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate --upgrade --quiet -o requirements.lock
