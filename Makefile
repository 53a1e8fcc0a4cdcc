# One command each: `make bench` measures every method, `make test` runs the tests, `make docs` builds the site in
# build/site. Each builds .venv on first use.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests of what rounding could decide: linear algebra, matches, ties, moments, values of metrics, statistics.
NUMERICAL := $(addprefix tests/test_,color.py metrics.py metrics_content.py metrics_style.py optimise.py patches.py \
	phases.py reflection.py report_statistics.py whitening.py)

.PHONY: bench test numerical stylize docs check clean

bench: $(STAMP)
	$(BIN)/zoo bench --methods all

stylize: $(STAMP)
	$(BIN)/zoo stylize

test: $(STAMP)
	$(BIN)/python -m pytest

# As other processors compute: with AVX2 alone, and with torch's own kernels for any x86-64 (they sum in other orders).
numerical: $(STAMP)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python -m pytest $(NUMERICAL)
	ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest $(NUMERICAL)

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
