# One command each: `make bench` measures every method, `make test` runs the tests, `make docs` builds the site in
# build/site. Each builds .venv on first use.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Compiled once, not again by each of the hundred processes that the tests start.
unexport PYTHONDONTWRITEBYTECODE

# Files with tests marked numerical: what rounding could decide (singular, tied, flat, converged).
NUMERICAL := $(addprefix tests/core/test_,color.py fast.py optimize.py patches.py whitening.py) \
	$(addprefix tests/metrics/test_,metrics.py metrics_content.py metrics_style.py) tests/report/test_report_statistics.py

.PHONY: bench test numerical numerical-avx2 numerical-default stylize docs check clean

bench: $(STAMP)
	$(BIN)/zoo bench --methods all

stylize: $(STAMP)
	$(BIN)/zoo stylize

test: $(STAMP)
	$(BIN)/python -m pytest

# As other processors compute: with AVX2 alone, and with torch's own kernels for any x86-64 (they sum in other orders).
# One process each, and side by side with make -j2.
numerical: numerical-avx2 numerical-default

numerical-avx2: export ATEN_CPU_CAPABILITY = avx2
numerical-avx2: export ONEDNN_MAX_CPU_ISA = AVX2
numerical-default: export ATEN_CPU_CAPABILITY = default

numerical-avx2 numerical-default: $(STAMP)
	$(BIN)/python -m pytest -m numerical $(NUMERICAL)

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
