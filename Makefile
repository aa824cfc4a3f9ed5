# One door to everything: each target sets up what it needs by itself, on a bare Debian with Python 3.11.
PYTHON ?= python3
MINUTES ?= 30
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo serve test soak lint format docs bench image system-test system-bench lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

venv: $(STAMP) ## build .venv with the project and its tools
$(STAMP): pyproject.toml requirements.lock scripts/venv
	scripts/venv "$(PYTHON)" "$(VENV)"
	@touch $(STAMP)

demo: $(STAMP) ## the main job in a minute: a registry, a mirror, a model pulled twice
	$(BIN)/mirror demo $(ARGS)

serve: $(STAMP) ## run the mirror with ./config.yaml
	$(BIN)/mirror serve

test: $(STAMP) system-test ## every test
	$(BIN)/python -m pytest -m "not soak" --numprocesses 2 --dist loadfile

soak: $(STAMP) system-test ## the long tests, then everything at once for MINUTES=30: about 40 minutes in all
	$(BIN)/python -m pytest -m soak --timeout=3600
	$(BIN)/python -m bench.soak --minutes $(MINUTES)

lint: $(STAMP) ## style, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## rewrite the code in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) system-bench ## ratios against nginx, docker-registry and the upstream itself, as tables and a picture
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --group bench
	mkdir -p build
	$(BIN)/python -m bench --plot build/bench.svg --json build/bench.json $(ARGS)

image: ## build the image without a registry of images, and run it as it would be run
	scripts/system-packages buildah debootstrap iproute2
	scripts/image

system-test:
	scripts/system-packages docker-registry skopeo nginx-light chromium prometheus tmux postgresql

system-bench:
	scripts/system-packages nginx-light wrk docker-registry

docs: $(STAMP) ## the documents as a site in build/docs; a link that leads nowhere fails
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: $(STAMP) ## write requirements.lock from what .venv holds
	$(BIN)/python -m pip freeze --exclude-editable | grep -vE '^(pip|setuptools|wheel)==' > requirements.lock

clean: ## remove what the targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
