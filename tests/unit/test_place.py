"""Where a command works, from its environment."""

import pytest

from orchestrator.cluster.place import current_place
from orchestrator.errors import UsageError

DATABASE = "postgresql://orchestrator@postgres/orchestrator"


@pytest.fixture
def addresses(monkeypatch):
    """``addresses(broker, database, artifacts)`` sets the variables of a shared cluster; None leaves one out."""

    def set_all(*values):
        for name, value in zip(("BROKER", "DATABASE", "ARTIFACTS"), values, strict=True):
            if value is None:
                monkeypatch.delenv(f"ORCHESTRATOR_{name}_URL", raising=False)
            else:
                monkeypatch.setenv(f"ORCHESTRATOR_{name}_URL", value)

    return set_all


def test_without_addresses_the_place_is_private(addresses, monkeypatch, tmp_path):
    addresses(None, None, None)
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "home"))
    place = current_place(create=True)
    assert place.home == tmp_path / "home"
    assert place.database_url == f"sqlite:///{tmp_path}/home/orchestrator.db"
    assert (tmp_path / "home" / "run").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "broker", ["redis://:password@valkey:6379/0", "rediss://valkey:6380/0", "redis+socket:///run/valkey.sock"]
)
def test_three_addresses_make_a_shared_cluster(addresses, broker):
    addresses(broker, DATABASE, "/artifacts")
    place = current_place(create=True)
    assert place.home is None
    assert (place.broker_url, place.database_url, place.artifacts_url) == (broker, DATABASE, "/artifacts")


@pytest.mark.parametrize("empty", [None, ""])
def test_a_missing_address_is_named(addresses, empty):
    addresses(empty, DATABASE, "/artifacts")
    with pytest.raises(UsageError, match=r"ORCHESTRATOR_BROKER_URL is not set\.$"):
        current_place(create=True)


@pytest.mark.parametrize("broker", ["valkey:6379", "amqp://user:password@rabbit//", "valkey://valkey/0"])
def test_a_broker_that_is_no_redis_is_refused_without_its_password(addresses, broker):
    """Celery would take a bare name for RabbitMQ and never reach it."""
    addresses(broker, DATABASE, "/artifacts")
    with pytest.raises(UsageError, match=r"redis://:PASSWORD@HOST:6379/0") as refused:
        current_place(create=True)
    assert "user:password" not in str(refused.value)
