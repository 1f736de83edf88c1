# Every target works on a fresh machine with make and Python 3.10 or newer; test-label needs Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
VENV_LABEL ?= .venv-label
VENV_DEPLOY ?= .venv-deploy
RUN := $(VENV)/bin/python
OUTPUT ?= output

.PHONY: demo app test test-slow test-label test-deploy test-app test-viewers release lint types clean

demo: $(VENV)/.installed  ## reconstruct the embedded demo case
	$(RUN) -m monai.bundle run --config_file bundle/configs/inference.json \
		--input bundle/docs/demo --output_dir $(OUTPUT)
	@echo "Open $(OUTPUT)/demo/report.html. Beside it: ct.nii.gz, dicom/ct, figure.png, result.json"

app: $(VENV)/.installed-app  ## open a page on this machine: drop two X-rays, look at the CT
	$(RUN) bundle/integrations/app

test: $(VENV)/.installed-dev  ## run the tests in two processes: three to nine minutes on two cores
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/.installed-dev  ## run the slow tests
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m slow

test-deploy: $(VENV)/.installed-dev $(VENV_DEPLOY)/.installed  ## test the real MONAI Deploy application, on the CPU
	ulimit -s 32768 && DEPLOY_PYTHON=$(abspath $(VENV_DEPLOY))/bin/python \
		$(RUN) -m pytest -m slow tests/integrations/deploy

test-label: $(VENV)/.installed-dev $(VENV_LABEL)/.installed  ## test a real MONAI Label server, on the CPU or a GPU
	LABEL_PYTHON=$(abspath $(VENV_LABEL))/bin/python $(RUN) -m pytest -m slow -raP tests/integrations/label

test-app: $(VENV)/.installed-dev  ## test the page, in Chromium if it is installed
	OMP_NUM_THREADS=1 $(RUN) -m pytest -ra -m "slow or not slow" \
		tests/integrations/test_app.py tests/integrations/test_app_browser.py

test-viewers: $(VENV)/.installed-dev  ## show a series in Cornerstone3D; needs npm, its registry, and Chromium
	npm install --silent --no-audit --no-fund --prefix tests/integrations/cornerstone
	$(RUN) -m pytest -ra -m "slow or not slow" tests/integrations/cornerstone tests/integrations/test_archive.py

release: $(VENV)/.installed-dev  ## build and check the model-zoo folder; for SCHEMA, MODEL_INFO and LARGE_FILE_URL see bundle/docs/release.md
	PYTHONPATH=bundle $(RUN) -m monai.bundle run --config_file tools/release.json --output_dir $(OUTPUT)/release \
		$(if $(SCHEMA),--schema "$(SCHEMA)") $(if $(MODEL_INFO),--model_info "$(MODEL_INFO)") \
		$(if $(LARGE_FILE_URL),--large_file_url "$(LARGE_FILE_URL)")

lint: $(VENV)/.installed-dev  ## check style and docstrings
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/.installed-dev  ## the types of what is shipped
	$(RUN) -m mypy

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.installed-app: bundle/integrations/app/requirements.txt $(VENV)/.installed
	$(RUN) -m pip install --quiet --requirement $<
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-export.txt requirements-cluster.txt \
		bundle/integrations/app/requirements.txt $(VENV)/.installed
	$(RUN) -m pip install --quiet --requirement requirements-dev.txt
	touch $@

$(VENV_DEPLOY)/.installed: bundle/integrations/deploy/requirements.txt
	$(PYTHON) -m venv $(VENV_DEPLOY)
	$(VENV_DEPLOY)/bin/python -m pip install --quiet --requirement $<
	touch $@

$(VENV_LABEL)/.installed: bundle/integrations/monailabel/install.sh \
		bundle/integrations/monailabel/requirements.txt
	PYTHON=$(PYTHON) bundle/integrations/monailabel/install.sh $(VENV_LABEL)
	touch $@

clean:
	rm -rf $(VENV) $(VENV_LABEL) $(VENV_DEPLOY) $(OUTPUT)
