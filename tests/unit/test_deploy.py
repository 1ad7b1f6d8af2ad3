"""What `deploy/` says fits what learnd does."""

import configparser
import re

import yaml

from learnd.cli.main import _parser
from learnd.config.loader import load
from learnd.core.errors import FINAL_EXIT_CODES
from learnd.observability.metrics import Metrics
from learnd.runtime.loop import STOP_S
from tests.support.helpers import ROOT

COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
POD = yaml.safe_load((ROOT / "deploy" / "kubernetes.yaml").read_text())["spec"]["template"]["spec"]
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


def _service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[method-assign, assignment]
    unit.read_string((ROOT / "deploy" / "learnd.service").read_text())
    return unit["Service"]


def test_stopping_is_given_enough_time() -> None:
    """systemd, compose and Kubernetes wait longer than a clean stop takes."""
    assert int(_service()["TimeoutStopSec"]) >= 25 > STOP_S
    assert COMPOSE["services"]["learnd"]["stop_grace_period"] == "30s"
    assert POD["terminationGracePeriodSeconds"] == 30


def test_supervisors_restart_what_a_restart_can_repair() -> None:
    """And nothing else, as far as they can tell exit codes apart: Docker cannot, so learnd exits with 0 there."""
    assert {int(code) for code in _service()["RestartPreventExitStatus"].split()} == FINAL_EXIT_CODES
    assert _service()["Restart"] == "on-failure"
    service = COMPOSE["services"]["learnd"]
    assert service["restart"] == "on-failure"
    assert service["command"][:2] == yaml.safe_load(DOCKERFILE.rpartition("CMD ")[2])
    assert _parser().parse_args(service["command"]).final_exit_code == 0
    assert POD["restartPolicy"] == "Always"
    assert _parser().parse_args(POD["containers"][0]["args"]).final_exit_code is None


def test_the_table_of_exit_codes_says_what_the_supervisors_do() -> None:
    """The rows whose second column says that a restart does not help are those of the code."""
    table = (ROOT / "README.md").read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \| (\w+) \|", table, re.MULTILINE)
    restarts = {int(code): restart for codes, restart in rows for code in codes.split(", ")}
    assert {code for code, restart in restarts.items() if restart == "no"} == {0, *FINAL_EXIT_CODES}
    assert 1 not in restarts


def test_kubernetes_runs_what_the_image_has() -> None:
    """Its user, configuration, port and volume, and the paths of the health checks."""
    (container,) = POD["containers"]
    assert container["args"] == yaml.safe_load(DOCKERFILE.rpartition("CMD ")[2])
    assert f"--uid {POD['securityContext']['runAsUser']} " in DOCKERFILE
    assert container["volumeMounts"][0]["mountPath"] == re.findall(r"^VOLUME (\S+)", DOCKERFILE, re.MULTILINE)[0]
    assert str(container["ports"][0]["containerPort"]) in re.findall(r"^EXPOSE (\d+)", DOCKERFILE, re.MULTILINE)
    paths = [container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")]
    assert paths == ["/livez", "/livez", "/readyz"]


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
