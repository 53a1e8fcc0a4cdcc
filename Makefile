# One command each: `make bench` measures every method, `make test` runs the tests, `make docs` builds the site in
# build/site. Each builds .venv on first use.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: bench test stylize docs check clean

bench: $(STAMP)
	$(BIN)/zoo bench --methods all

stylize: $(STAMP)
	$(BIN)/zoo stylize

test: $(STAMP)
	$(BIN)/python -m pytest

docs: $(STAMP)
	$(BIN)/python -m mkdocs build --strict

check: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check ruff pyright
	$(BIN)/ruff check zoo tests benchmarks
	$(BIN)/ruff format --check zoo tests benchmarks
	$(BIN)/pyright

# Reinstalled only when the requirements change; the package itself is installed in place.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV)
