# Each target first builds .venv from requirements.lock with uv, once. Python 3.10 or newer is all it needs.
PYTHON ?= python3

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv==0.13.8
	.uv/bin/uv venv --quiet --allow-existing --python $(PYTHON) .venv
	.uv/bin/uv pip sync --quiet --python .venv requirements.lock
	.uv/bin/uv pip install --quiet --python .venv --no-deps --editable .
	touch $@

.PHONY: demo test slow-test label-studio-test test-floors check check-versions docs benchmark lock
demo: .venv/ready
	.venv/bin/no-time-to-train demo

# One process per core, each computing on one thread: processes with more threads than cores slow each other down.
test: .venv/ready
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile

slow-test: .venv/ready
	.venv/bin/python -m pytest -m slow

# Label Studio in an environment of its own (0.8 GB), used by the test through its API.
.label-studio/ready:
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv==0.13.8
	.uv/bin/uv venv --quiet --clear --python $(PYTHON) .label-studio
	.uv/bin/uv pip install --quiet --python .label-studio label-studio==1.23.2
	touch $@

label-studio-test: .venv/ready .label-studio/ready
	LABEL_STUDIO=.label-studio/bin/label-studio .venv/bin/python -m pytest -s tests/test_real_label_studio.py

# The lowest versions that pyproject.toml allows, in an environment of their own (about 5 GB).
FLOORS_PYTHON ?= $(PYTHON)
test-floors: .venv/ready
	.uv/bin/uv venv --quiet --clear --python $(FLOORS_PYTHON) .floors
	.uv/bin/uv pip install --quiet --python .floors --resolution lowest-direct --editable ".[dev]"
	.floors/bin/no-time-to-train demo --n-shot 1 --images 2 --out .floors/demo
	OMP_NUM_THREADS=1 .floors/bin/python -m pytest tests/test_method.py tests/test_sampling.py tests/test_tool_forms.py \
	  tests/test_label_files.py tests/test_instances.py tests/evaluation tests/test_authors_config.py \
	  tests/test_encoders.py tests/test_app.py

check: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python scripts/config_table.py --check

# Each dependency has a version for the oldest and the newest Python on each system; three have no wheels anywhere.
RESOLVE = .uv/bin/uv pip compile pyproject.toml --extra heif --extra app --quiet --only-binary :all: --no-binary sam2 \
  --no-binary iopath --no-binary antlr4-python3-runtime
check-versions: .venv/ready
	set -e; for system in linux macos windows; do \
	  $(RESOLVE) --python-platform $$system --python-version 3.10 --resolution lowest-direct >/dev/null; \
	  for python in 3.10 3.14; do \
	    $(RESOLVE) --python-platform $$system --python-version $$python >/dev/null; \
	  done; \
	done

# The documentation site in .site, with the versions of the group docs in pyproject.toml. It fails on a broken link.
.docs-env/ready: pyproject.toml
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet uv==0.13.8
	.uv/bin/uv venv --quiet --clear --python $(PYTHON) .docs-env
	.uv/bin/uv pip install --quiet --python .docs-env --group docs
	touch $@

docs: .docs-env/ready
	NO_MKDOCS_2_WARNING=1 .docs-env/bin/mkdocs build --strict --quiet

# About twenty minutes on two cores, if nothing else runs. Writes timing/RESULTS.md.
benchmark: .venv/ready
	.venv/bin/python -m timing

# Pins and hashes without the registries' addresses.
lock: .venv/ready
	.uv/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --generate-hashes \
	  --no-annotate --no-header --no-emit-index-url --quiet --output-file requirements.lock
