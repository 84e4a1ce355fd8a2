# make check: what must pass before a commit. make smoke: a clean install answers. `bash .ci/run` does both, from nothing.
PYTHON ?= $(CURDIR)/.venv/bin/python

.PHONY: check format lint types tests docs smoke install clean

check: lint types tests docs

install:
	python3 -m venv .venv
	.venv/bin/pip install -e '.[dev]'

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

# mypy does not see through an editable install, so it gets a copy of the package as it will be installed.
types:
	rm -rf build/types && mkdir -p build/types
	cp -R audiosearch build/types/ && cp -R trainer indexes migrations build/types/audiosearch/
	cd build/types && $(PYTHON) -m mypy --config-file ../../setup.cfg --cache-dir ../../.mypy_cache -p audiosearch

tests:
	$(PYTHON) -m pytest

docs:
	$(PYTHON) -m pytest -q tests/test_packaging.py

smoke:
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && python3 -m venv "$$folder/venv" \
		&& "$$folder/venv/bin/pip" install --quiet . \
		&& "$$folder/venv/bin/audiosearch" --help && "$$folder/venv/bin/audiosearch" doctor

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
