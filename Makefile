# Everything here works on a fresh machine with Python 3.10 or newer and make.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
OUTPUT ?= output

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.installed  ## reconstruct the embedded demo case
	$(RUN) -m monai.bundle run --config_file bundle/configs/inference.json \
		--input bundle/docs/demo --output_dir $(OUTPUT)
	@echo "See $(OUTPUT)/demo: ct.nii.gz, figure.png, result.json"

test: $(VENV)/.installed-dev  ## the tests, two processes, under ten minutes on two cores
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2

test-slow: $(VENV)/.installed-dev  ## the tests that take longer
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m slow

lint: $(VENV)/.installed-dev  ## style and docstrings
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(RUN) -m pip install --quiet --requirement requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) $(OUTPUT)
