# Every target sets up .venv by itself from the locked requirements; PYTHON=... chooses the interpreter for it.
# ARGS=... is passed on: make test ARGS="-k queue", make lock ARGS=--upgrade

.DEFAULT_GOAL := help
.PHONY: help setup demo shell test chaos check bench lock judge clean
BIN := .venv/bin

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup:  ## make .venv ready for use; instant if it is
	@requirements/bootstrap.sh .venv dev editable

demo: setup  ## the whole fleet on a simulated beamline: scans, a fit, a NeXus file
	@$(BIN)/python -m deploy.demo $(ARGS)

shell: setup  ## the IPython shell on a running fleet, started if there is none
	@$(BIN)/bec $(ARGS)

test: setup  ## all tests
	@$(BIN)/python -m pytest $(ARGS)

chaos: setup  ## kill sweeps over running scans: make chaos SEED=1 KILLS=200
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(KILLS),--kills $(KILLS)) $(ARGS)

check: setup  ## style, types, import contracts, generated documentation
	@failed=; run() { echo "== $$*"; "$(BIN)/$$@" || failed="$$failed $$1"; }; \
	run ruff check --output-format concise; \
	run ruff format --check --output-format concise; \
	run mypy; \
	run lint-imports --no-logo; \
	run python -m bec_lib.reference --check docs/endpoints.md; \
	if [ -n "$$failed" ]; then echo "check: failed:$$failed" >&2; exit 1; fi

bench: setup  ## the workloads of docs/performance.md, as a table
	@$(BIN)/python -m tests.bench $(ARGS)

lock: setup  ## write requirements/*.txt anew from pyproject.toml
	@requirements/lock.sh $(ARGS)

judge:  ## judge NeXus files with two independent validators: make judge FILE=S00001.h5
	@test -n "$(FILE)" || { echo "judge: name a file: make judge FILE=path/to/S00001.h5" >&2; exit 2; }
	@requirements/bootstrap.sh .venv-judges judges
	@.venv-judges/bin/python tests/judges.py $(FILE)

clean:  ## remove the environments and caches
	rm -rf .venv .venv-judges build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
