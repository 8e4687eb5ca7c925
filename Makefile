# Each target first builds .venv from requirements.lock with uv, once. Python 3.10 or newer is all it needs.
PYTHON ?= python3

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv==0.13.8
	.uv/bin/uv venv --quiet --allow-existing --python $(PYTHON) .venv
	.uv/bin/uv pip sync --quiet --python .venv requirements.lock
	.uv/bin/uv pip install --quiet --python .venv --no-deps --editable .
	touch $@

.PHONY: demo test slow-test check benchmark lock
demo: .venv/ready
	.venv/bin/no-time-to-train demo

# One process per core, each computing on one thread: processes with more threads than cores slow each other down.
test: .venv/ready
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile

slow-test: .venv/ready
	.venv/bin/python -m pytest -m slow

check: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python scripts/config_table.py --check

# About ten minutes on two cores, if nothing else runs.
benchmark: .venv/ready
	.venv/bin/python -m timing.stages

# Pins and hashes without the registries' addresses.
lock: .venv/ready
	.uv/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --generate-hashes \
	  --no-annotate --no-header --no-emit-index-url --quiet --output-file requirements.lock
