"""What `deploy/` says fits what learnd does."""

import configparser
import re

import yaml

from learnd.config.loader import load
from learnd.core.errors import BadDataError, ConfigError, DataDirLockedError, UsageError
from learnd.observability.metrics import Metrics
from learnd.runtime.loop import STOP_S
from tests.support.helpers import ROOT

COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_container_runs_the_configuration_that_compose_feeds() -> None:
    """Environment, topics, port and volume of compose, image and configuration agree."""
    assert 'CMD ["run", "/etc/learnd/press-7.yaml"]' in DOCKERFILE
    environ = dict(re.findall(r"(LEARND_\w+)=(\S+)", DOCKERFILE)) | COMPOSE["services"]["learnd"]["environment"]
    settings = load(ROOT / "configs" / "press-7.yaml", environ)
    assert settings.source.bootstrap_servers == ["kafka:29092"]  # type: ignore[union-attr]
    assert settings.http.host == "0.0.0.0"
    assert f"127.0.0.1:{settings.http.port}:{settings.http.port}" in COMPOSE["services"]["learnd"]["ports"]
    assert str(settings.data_dir).startswith("/data/")
    assert COMPOSE["services"]["learnd"]["volumes"] == ["model:/data"]
    made = COMPOSE["services"]["topics"]["command"][-1]
    sinks = [sink.topic for sink in (settings.dead_letter, settings.predictions) if sink is not None]
    for topic in [*settings.source.topics, *sinks]:  # type: ignore[union-attr]
        assert f" {topic}" in made


def test_the_image_runs_without_root_and_is_watched() -> None:
    """Two stages, a user, a health check on what learnd serves."""
    assert DOCKERFILE.count("\nFROM ") + DOCKERFILE.startswith("FROM ") == 2
    assert re.search(r"^USER learnd$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
    assert "/livez" in DOCKERFILE


def test_stopping_is_given_enough_time() -> None:
    """systemd and compose wait longer than a clean stop takes, and do not restart what cannot get better."""
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[method-assign, assignment]
    unit.read_string((ROOT / "deploy" / "learnd.service").read_text())
    service = unit["Service"]
    assert int(service["TimeoutStopSec"]) >= 25 > STOP_S
    assert COMPOSE["services"]["learnd"]["stop_grace_period"] == "30s"
    hopeless = {UsageError.exit_code, BadDataError.exit_code, DataDirLockedError.exit_code, ConfigError.exit_code}
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == hopeless


def test_prometheus_scrapes_what_compose_runs() -> None:
    """The target is learnd's service and port."""
    scrape = yaml.safe_load((ROOT / "deploy" / "prometheus.yaml").read_text())["scrape_configs"][0]
    assert scrape["static_configs"][0]["targets"] == ["learnd:9464"]


def test_every_metric_is_told() -> None:
    """Name, labels and meaning, as a scrape has them."""
    metrics = Metrics()
    rows = [
        f"| `{family.name}{'_total' * (family.type == 'counter')}` | {labels} | {family.documentation} |"
        for collector in metrics.registry._collector_to_names
        for family in collector.collect()
        for labels in [", ".join(f"`{name}`" for name in getattr(collector, "_labelnames", ()))]
        if family.name.startswith("learnd_")
    ]
    assert len(rows) > 30
    text = (ROOT / "deploy" / "README.md").read_text()
    assert [row for row in rows if row not in text] == []
    told = set(re.findall(r"^\| `(learnd_\w+)`", text, re.MULTILINE))
    assert told == {row.split("`")[1] for row in rows}
