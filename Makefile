# Everything a change must pass, and the demo; each makes .venv from the pinned lock if it is not there.
PYTHON ?= python3
.DELETE_ON_ERROR:
.PHONY: demo test lint types tiers check bench

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bertloom needs Python 3.11 or newer")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: .venv/ready
	.venv/bin/bertloom demo

test: .venv/ready
	.venv/bin/python -m pytest --numprocesses auto

lint: .venv/ready
	.venv/bin/ruff check . && .venv/bin/ruff format --check .

types: .venv/ready
	.venv/bin/mypy

tiers: .venv/ready
	.venv/bin/lint-imports

check: test lint types tiers

bench: .venv/ready
	.venv/bin/python bench/prepare.py --memory
	.venv/bin/python bench/pretrain.py
	.venv/bin/python bench/finetune.py sst2 squad squad-dynamic
	.venv/bin/python bench/race.py
	.venv/bin/python bench/encode.py
	.venv/bin/python bench/forms.py
	.venv/bin/python bench/serve.py
