"""What docker-compose.yml and its neighbours promise, read from the files themselves."""

import re
from pathlib import Path

import pytest
import yaml

from db.dispatch import QUEUES

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "orchestrator"}
ADDRESSES = {"ORCHESTRATOR_BROKER_URL", "ORCHESTRATOR_DATABASE_URL", "ORCHESTRATOR_ARTIFACTS_URL"}
LONG_RUNNING = sorted(SERVICES.keys() - {"migrate"})


def test_every_service_is_there():
    assert SERVICES.keys() == {
        "valkey",
        "postgres",
        "migrate",
        "cpu-worker",
        "gpu-worker",
        "reconciler",
        "flower",
    }
    assert SERVICES.keys() - OURS.keys() == {"valkey", "postgres"}


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("migrate", "migrate"),
        ("cpu-worker", "worker"),
        ("gpu-worker", "worker"),
        ("reconciler", "reconcile"),
        ("flower", "flower"),
    ],
)
def test_the_cli_accepts_a_services_command(parse, service, command):
    assert parse(OURS[service]["command"])[0] == command


@pytest.mark.parametrize(("service", "queue"), [("cpu-worker", "cpu"), ("gpu-worker", "gpu")])
def test_a_worker_serves_its_queue(parse, service, queue):
    assert queue in QUEUES
    assert parse(OURS[service]["command"])[1]["queues"] == queue


def test_one_process_owns_the_gpu(parse):
    """Two would share its memory."""
    service = SERVICES["gpu-worker"]
    assert service["profiles"] == ["gpu"]
    assert parse(service["command"])[1]["concurrency"] == 1
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert len(device["device_ids"]) == 1


def test_nothing_else_needs_a_profile():
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["gpu-worker"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_share_addresses_and_files(name):
    service = SERVICES[name]
    assert service["environment"].keys() >= ADDRESSES
    folder = service["environment"]["ORCHESTRATOR_ARTIFACTS_URL"].removeprefix("file://")
    assert f"artifacts:{folder}" in service["volumes"]
    assert service["build"] == "."
    assert service["init"] is True


def test_passwords_come_from_outside_and_have_no_default():
    """Whatever looks like a password is a required variable."""
    secrets = [
        *(value for service in OURS.values() for value in service["environment"].values() if "://" in value),
        SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"],
        SERVICES["valkey"]["environment"]["VALKEY_PASSWORD"],
        SERVICES["flower"]["environment"]["FLOWER_BASIC_AUTH"],
    ]
    required = re.compile(r"\$\{[A-Z_]+:\?[^}]+\}")
    for secret in secrets:
        assert required.search(secret) or secret.startswith("file:"), secret
        assert not re.search(r"://[^@$]*:[^@$]+@", secret), secret
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"\$\{[^}]*\}", text)) == set(required.findall(text))


def test_the_example_names_every_variable_and_no_value():
    text = (ROOT / "docker-compose.yml").read_text()
    lines = (ROOT / ".env.example").read_text().splitlines()
    assignments = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert assignments.keys() == set(re.findall(r"\$\{([A-Z_]+)", text))
    assert set(assignments.values()) == {""}


def test_no_secret_and_no_result_enters_an_image_or_a_commit():
    """The build reads an allow-list: everything is out, then what `pip install` needs is in."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    assert all(line.startswith("!") for line in patterns[1:-1])
    assert patterns[-1] == "**/__pycache__"
    packages = {"early_exit", "db", "tasks", "orchestrator", "workers"}
    assert {line[1:] for line in patterns[1:-1]} == packages | {"LICENSE", "README.md", "pyproject.toml"}
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_only_flower_has_a_port_on_the_host_and_only_on_its_loopback(parse):
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"flower": ["127.0.0.1:5555:5555"]}
    options = parse(SERVICES["flower"]["command"])[1]
    assert (options["address"], options["port"]) == ("0.0.0.0", 5555)
    assert not any(service.get("network_mode") for service in SERVICES.values())


def test_the_broker_wants_a_password_that_no_argument_holds():
    shell, option, script = SERVICES["valkey"]["command"]
    assert (shell, option) == ("sh", "-c")
    command, *configuration, end = script.strip().splitlines()
    assert command.startswith("exec valkey-server - ")
    assert "PASSWORD" not in command
    assert configuration == ["requirepass $$VALKEY_PASSWORD"]
    assert end == "EOF"


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_long_running_service_starts_again_and_has_time_to_end(name):
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["stop_grace_period"] == "60s"


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"migrate", "reconciler"}))
def test_a_service_says_whether_it_is_well(name):
    """`migrate` ends at once; `reconcile` ends on any error."""
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


def test_services_start_in_order():
    for name in OURS.keys() - {"migrate"}:
        assert SERVICES[name]["depends_on"] == {
            "migrate": {"condition": "service_completed_successfully"},
            "valkey": {"condition": "service_healthy"},
        }
    assert SERVICES["migrate"]["restart"] == "no"
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_the_image_runs_as_nobody_in_particular():
    instructions = (ROOT / "Dockerfile").read_text().splitlines()
    assert instructions[0].startswith("FROM python:3")
    assert instructions[0].endswith("-slim")
    users = [line.split()[1] for line in instructions if line.startswith("USER ")]
    assert users == ["orchestrator"]
    assert instructions[-1] == 'ENTRYPOINT ["orchestrator"]'
    assert any("[postgres]" in line for line in instructions)
    assert (ROOT / "pyproject.toml").read_text().count("\npostgres = [") == 1
