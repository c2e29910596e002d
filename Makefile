BIN := .venv/bin

.PHONY: help test storm soak lint demo

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: ## Run the tests
	$(BIN)/pytest

storm: ## Kill workers, brokers and databases for an hour
	$(BIN)/pytest -m storm

soak: ## Half an hour of small jobs under kills, once per database
	$(BIN)/pytest -m soak

lint: ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

demo: ## Run the whole paper on the built-in dataset
	$(BIN)/orchestrator submit full-paper
