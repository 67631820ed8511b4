# make reproduce, test, benchmark, rehearsal (SCALE=0.1: a tenth of the published size), faults, audit: each installs what it needs into .venv on first use
PYTHON ?= python3
DATA ?= simulated
SCALE ?= 1
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: reproduce test benchmark rehearsal faults audit install clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .[dev]
	touch $@

reproduce: install
	$(RUN) -m methyl_lightning.prepare data=$(DATA)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" python -m methyl_lightning.train +experiment=reproduce$(if $(filter-out simulated,$(DATA)), data=$(DATA))

test: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest --numprocesses 2 --dist worksteal

benchmark: install
	$(RUN) -m experiments.benchmarks

rehearsal: install
	$(RUN) -m experiments.benchmarks.rehearsal --scale $(SCALE)

faults: install
	$(RUN) -m experiments.reliability

audit: install
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .[audit]
	$(RUN) -m experiments.reliability.audit

clean:
	rm -rf $(VENV) stores outputs multirun dist
