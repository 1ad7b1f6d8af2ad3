"""The configuration: every mistake at once, each with its line and the way out."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from learnd.config.loader import json_schema, load, loads
from learnd.core.errors import ConfigError
from learnd.sources.kafka_auth import client_options
from tests.support.helpers import ROOT, config_text

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
STARTER = ROOT / "daemon" / "learnd" / "config" / "starter.yaml"

MISTAKES = """\
name: "pr ess"
data_dri: x
source:
  kind: kafak
features: {t: {min: 5, mx: 7}, p: }
target: wear
target: w2
model: {kind: mlp, hiden: [3]}
averaging: {size: 0}
checkpoint: {keep: 1}
task: {kind: forecast, window: abc}
http:
  port: ${NOPE}
"""


def _problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, file="a.yaml", environ=environ)
    return [str(problem) for problem in caught.value.problems]


def test_every_mistake_is_found_at_once_with_its_line() -> None:
    """Ten mistakes, ten lines."""
    found = _problems(MISTAKES)
    lines = {problem.split(":")[1] + " " + problem.split(": ")[1] for problem in found}
    assert lines == {
        "1 name",
        "2 data_dri",
        "4 source.kind",
        "5 features.t.mx",
        "7 target",
        "8 model.hiden",
        "9 averaging.size",
        "10 checkpoint.keep",
        "11 task.window",
        "13 http.port",
    }
    assert len(found) == len(lines)
    text = "\n".join(found)
    for hint in ("data_dir?", "kafka?", "max?", "hidden?", "first on line 6", "${NOPE:-default}"):
        assert hint in text


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"target": None}, "target: is required for task.kind regression"),
        ({"task": {"kind": "forecast"}}, "target: has no effect for task.kind forecast"),
        ({"model": {"kind": "lstm"}}, "set task.window"),
        ({"model": {"kind": "autoencoder"}}, "autoencoder needs task.kind reconstruction"),
        ({"target": "a"}, "a is also a feature"),
        ({"features": {"a": {"min": 2, "max": 1}}}, "min 2.0 must be below max 1.0"),
        ({"features": ["a", "a"]}, "these names appear more than once: a"),
        ({"features": {"a": {"stuck_after": 3, "on_fault": "hold"}}}, "hold would repeat the reading that is stuck"),
        (
            {"features": {"a": {"on_fault": "mean"}}},
            "has no effect without min, max, max_change or",
        ),
        ({"dead_letter": {"topic": "x"}}, "needs source.kind kafka"),
        ({"dead_letter": {}}, "set either topic or path"),
        ({"decode": {"kind": "csv"}}, "decode.columns: is required"),
        ({"decode": {"kind": "csv", "columns": ["a", "b", "cc", "y"]}}, "lacks c; did you mean cc?"),
        ({"export": {"every_seconds": None}}, "set every_seconds or every_samples"),
        ({"export": {"formats": [], "signing_key_file": "k"}}, "export.formats: is empty, so there is nothing to sign"),
        ({"source": {"kind": "kafka"}}, "source.bootstrap_servers: is missing"),
        ({"learning": {"optimizer": {"beta_1": "abc"}}}, "beta_1 is 'abc'"),
        ({"dead_letter": {"path": "x"}, "predictions": {"path": "x"}}, "x is also the path of dead_letter"),
        ({"source": {"kind": "file", "path": "x"}, "predictions": {"path": "x"}}, "x is also the path of source"),
        (
            {"dead_letter": {"path": "x"}, "predictions": {"path": str(Path("x").absolute())}},
            "is also the path of dead_letter",
        ),
        ({"decode": {"kind": "json", "key": "a"}}, "decode.key: a is also a feature or a target"),
        ({"alarms": {"planned_stop_field": "a"}}, "alarms.planned_stop_field: a has another role already"),
        ({"alarms": {"suppress": [{"feature": "aa"}]}}, "alarms.suppress[0].feature: aa is no feature; did you mean a"),
        ({"alarms": {"suppress": [{}]}}, "name a feature, a key or both"),
        ({"alarms": {"planned_stops": [{"from": "2026-01-02", "to": "2026-01-01"}]}}, "from must be before to"),
        ({"alarms": {"false_alarms_per": 10}}, "alarms.false_alarms_per"),
        ({"learning": {"optimizer": {"kind": "adan"}}}, "is not a Keras optimizer; did you mean Adam?"),
        ({"learning": {"optimizer": {"lr": 0.1}}}, "Adam has no argument lr; did you mean learning_rate?"),
        ({"learning": {"optimizer": {"kind": "sgd", "x": 1}}}, "SGD has no argument x; it takes clipnorm"),
        (
            {"learning": {"optimizer": {"learning_rate": {"kind": "CosineDecay", "alfa": 0.1}}}},
            "CosineDecay has no argument alfa; did you mean alpha?",
        ),
        ({"learning": {"learning_rate": 0.1}}, "unknown key; did you mean learning.optimizer.learning_rate?"),
        ({"optimizer": {"lr": 0.1}}, "optimizer: unknown key; did you mean learning.optimizer?"),
        ({"model": "mlp"}, "model: must be a section; write model: {kind: mlp}"),
        ({"model": "mpl"}, "model: must be a section; write model: {kind: mlp}"),
        ({"learning": "per_sample"}, "learning: must be a section; write learning: {mode: per_sample}"),
        ({"decode": ["json"]}, "decode: must be a section such as decode: {kind: json}; kind is one of json"),
        ({"http": 80}, "http: must be a section with the keys host, port"),
        ({"source": None}, "source: is missing; give it a kind: kafka, file, simulator"),
    ],
)
def test_contradictions_name_the_way_out(tmp_path: Path, sections: dict[str, Any], expected: str) -> None:
    """What is wrong between sections is found too."""
    assert expected in "\n".join(_problems(config_text(tmp_path, **sections)))


def test_feeding_ones_own_rejects_is_refused(tmp_path: Path) -> None:
    """A dead-letter topic that the source reads would never end."""
    source = {"kind": "kafka", "bootstrap_servers": ["b:1"], "topics": ["t"]}
    assert "would read its own output" in _problems(config_text(tmp_path, source=source, dead_letter={"topic": "t"}))[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{a: ${B}}", 'write "${VAR}" in quotes'),
        ("- 1", "must be a mapping of keys to values"),
        ("", "must be a mapping of keys to values"),
        ("a: [", "not YAML"),
        ("[" * 5000, "is nested too deeply"),
        ("a: 1\n? [b, c]\n: 2", "a.yaml:1: has a key that is not text, on line 2"),
        ("a: *b", "an alias that is not defined"),
    ],
)
def test_unreadable_yaml_is_explained(text: str, expected: str) -> None:
    """Never a traceback."""
    assert expected in "\n".join(_problems(text))


@pytest.mark.parametrize(
    "line",
    [
        "name: !!python/object:os.system x",
        "name: !mine x",
        "features: !!python/object/apply:os.system [a]",
        "features: !!set {a, b}",
        "features: !mine {a: }",
        "source: !!python/object/new:os.system {kind: simulator}",
        "!!python/name:os.system name: x",
        "features: [a, !!binary YQ==]",
    ],
)
def test_tags_are_refused_wherever_they_stand(line: str) -> None:
    """On values, lists, mappings and keys; never code from the file, never a value that a tag has changed."""
    problems = [problem for problem in _problems(f"seed: 1\n{line}\n") if "is not allowed; write the plain" in problem]
    assert len(problems) == 1
    assert problems[0].startswith("a.yaml:2: ")


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\x85", "\u2028", "\u2029", "\v", "\f"])
@pytest.mark.parametrize("where", ["name: ${X}", 'name: "${X}"', "name: a ${X} b"])
def test_environment_values_with_line_breaks_are_refused(where: str, line_break: str) -> None:
    """In the middle and at the end, in quotes and out of them, whatever YAML or a log file breaks lines at."""
    for value in (f"canary-1{line_break}canary-2", f"canary-1{line_break}"):
        found = [problem for problem in _problems(where, X=value) if problem.startswith("a.yaml:1: name: ")]
        assert found == ["a.yaml:1: name: the environment variable X holds a line break; a value must be one line"]


def test_duplicate_keys_are_refused_at_every_depth() -> None:
    """Each with both of its lines, also inside lists and flow mappings; the first value does not win in silence."""
    text = "source:\n  kind: file\n  kind: file\nfeatures: {a: {min: 1, min: 2}}\nx:\n- b: 1\n  b: 2\n"
    found = _problems(text)
    assert "a.yaml:3: source.kind: appears twice; first on line 2" in found
    assert "a.yaml:4: features.a.min: appears twice; first on line 4" in found
    assert "a.yaml:7: x[0].b: appears twice; first on line 6" in found


def test_aliases_cannot_make_a_bomb() -> None:
    """Ten to the ninth values out of ten lines, and a list that holds itself, are refused at once, with their line."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert _problems("\n".join(lines))[0].startswith("a.yaml:1: holds more than 100000 values; remove aliases")
    assert _problems("a: 1\nb: &b [c, *b]")[0] == "a.yaml:2: contains itself through an alias (*name); remove the alias"


def test_an_honest_alias_is_read(tmp_path: Path) -> None:
    """Anchors and aliases are YAML like any other."""
    text = config_text(tmp_path, features=None, target=None) + "features: {a: &range {min: 0}, b: *range}\ntarget: y\n"
    assert loads(text).features["b"].min == 0


def test_environment_values_keep_their_type_and_cannot_be_structure(tmp_path: Path) -> None:
    """A number stays a number; braces stay text."""
    text = config_text(tmp_path).replace("name: test", 'name: "${NAME:-test}"').replace("port: 0", "port: ${PORT}")
    settings = loads(text, environ={"PORT": "9000", "NAME": "press"})
    assert (settings.http.port, settings.name) == (9000, "press")
    assert "name" in _problems(text, PORT="1", NAME="{a: b}")[0]


def test_secrets_do_not_show(tmp_path: Path) -> None:
    """Not in the settings' text, not in the digest's input, not in an error."""
    source = {
        "kind": "kafka",
        "bootstrap_servers": ["b:1"],
        "topics": ["t"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "u",
        "sasl_password": "${SECRET}",
    }
    text = config_text(tmp_path, source=source)
    settings = loads(text, environ={"SECRET": "canary-8213"})
    assert "canary-8213" not in repr(settings) + settings.model_dump_json()
    assert settings.digest() == loads(text, environ={"SECRET": "other"}).digest()
    assert client_options(settings.source)["sasl_plain_password"] == "canary-8213"  # type: ignore[arg-type]
    insecure = config_text(tmp_path, source={**source, "security_protocol": "SASL_PLAINTEXT"})
    problems = _problems(insecure, SECRET="canary-8213")
    assert "allow_insecure: true" in problems[0]
    assert "canary" not in problems[0]


_LOGIN = {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "p"}
_TLS = {"security_protocol": "SASL_SSL"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_a_login_in_the_clear_is_refused_unless_allowed(mechanism: str, tmp_path: Path) -> None:
    """Whatever the mechanism: SCRAM hides the password from who listens, but not from who answers."""
    login = _LOGIN if mechanism != "OAUTHBEARER" else {"sasl_oauth_token_file": "/token"}
    login = {**login, "sasl_mechanism": mechanism, "security_protocol": "SASL_PLAINTEXT"}
    source = {"kind": "kafka", "bootstrap_servers": ["b:1"], "topics": ["t"], **login}
    assert "use SASL_SSL, or set allow_insecure: true" in _problems(config_text(tmp_path, source=source))[0]
    assert "allow_insecure" in _problems(config_text(tmp_path, source={**source, "allow_insecure": False}))[0]
    loads(config_text(tmp_path, source={**source, "allow_insecure": True}))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (_TLS, "SASL_SSL needs sasl_mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"),
        ({**_TLS, **_LOGIN, "sasl_password": ""}, "PLAIN needs sasl_username, and sasl_password or sasl_password_file"),
        ({**_TLS, **_LOGIN, "sasl_password_file": "f"}, "sasl_password and sasl_password_file both; name one"),
        ({**_TLS, **_LOGIN, "sasl_oauth_token_file": "f"}, "sasl_oauth_token_file with PLAIN, which takes a password"),
        ({**_TLS, "sasl_mechanism": "OAUTHBEARER"}, "either sasl_oauth_token_file or sasl_oauth_token_provider"),
        ({**_TLS, **_LOGIN, "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": "f"}, "sasl_username with OAUTH"),
        (_LOGIN, "sasl_mechanism, sasl_username, sasl_password without SASL: security_protocol is PLAINTEXT"),
        ({"ssl_cafile": "f"}, "ssl_cafile without TLS: security_protocol is PLAINTEXT; use SSL or SASL_SSL"),
        ({"security_protocol": "SSL", "ssl_keyfile": "f"}, "ssl_keyfile without ssl_certfile"),
        ({**_TLS, **_LOGIN, "sasl_mechanism": "GSSAPI"}, "source.sasl_mechanism: "),
        ({**_TLS, "sasl_oauth_token_provider": "no function"}, "source.sasl_oauth_token_provider: "),
    ],
)
def test_half_a_login_is_refused(options: dict[str, Any], expected: str, tmp_path: Path) -> None:
    """Above all what would have no effect: whoever wrote it down believes that it protects something."""
    source = {"kind": "kafka", "bootstrap_servers": ["b:1"], "topics": ["t"], **options}
    assert expected in "\n".join(_problems(config_text(tmp_path, source=source)))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("name: ${X}", "name: should match pattern"),
        ("seed: ${X}", "seed: should be a valid integer, unable to parse string as an integer, not the value of ${X}"),
        ("source: {kind: '${X}'}", "source.kind: the value of ${X} is not one of kafka, file, simulator"),
        ("seed: ${D}", "seed: the value of ${D} is not a valid timestamp; if it is text, put it in quotes"),
        ("source: {kind: kafka, sasl_password: '${X}'}", "source.topics: is missing"),
        (
            "source: {kind: kafka, sasl_password: 8213}",
            'sasl_password: must be text; put the value in quotes, as in "${VARIABLE}"',
        ),
        ("source: {kind: kafka, sasl_password: [canary-8213]}", "sasl_password: must be text"),
        ("source: {kind: kafka, sasl_password: *canary-8213 }", "an alias that is not defined"),
        ("export: {upload: {url: 's3://b/x', options: {secret: !!int canary-8213}}}", "the value is not a valid int"),
        ("export: {upload: {url: 's3://b/x', options: canary-8213}}", "options: must be a mapping from names"),
        ("export: {upload: {url: 's3://b/x', options: {secret: !canary-8213 x}}}", "secret: a tag is not allowed"),
        (
            "export: {upload: {url: 's3://b/x', options: {secret: [canary-8213]}}}",
            "must be a mapping from names to text or numbers",
        ),
        ("source: {kind: kafka, sasl_password: !canary-8213 x}", "sasl_password: a tag is not allowed"),
        (
            "source: {kind: kafka, sasl_pasword: '${X}'}",
            "source.sasl_pasword: unknown key; did you mean sasl_password?",
        ),
    ],
)
def test_errors_show_neither_secrets_nor_the_environment(line: str, expected: str) -> None:
    """Whatever is wrong: the variable is named, its value is not; nor is what stands in the file for a password."""
    text = "\n".join(_problems(line, X="canary-8213 x", D="8213-99-99"))
    assert expected in text
    assert "8213" not in text


@pytest.mark.parametrize("path", [*CONFIGS, STARTER], ids=lambda path: path.name)
def test_every_shipped_configuration_loads_and_fits_the_schema(path: Path) -> None:
    """What we ship works, and editors that use the schema agree."""
    load(path, environ={})
    values = yaml.safe_load(path.read_text().replace('"${LEARND_PORT:-9464}"', "9464"))
    jsonschema.Draft7Validator(json_schema()).validate(values)


def test_schema_is_draft_7_and_finds_mistakes() -> None:
    """The schema is valid itself, and refuses what the loader refuses."""
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    values = yaml.safe_load(STARTER.read_text())
    for wrong in ({"sourcee": {}}, {"model": {"kind": "nope"}}, {"checkpoint": {"keep": 1}}, {"features": []}):
        assert list(validator.iter_errors({**values, **wrong})), json.dumps(wrong)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"learning": {"batch_size": 8}}, r"learning\.batch_size: unknown key; it belongs to mode: micro_batch"),
        ({"model": {"kind": "mlp", "units": 3}}, r"model\.units: unknown key; it belongs to kind: lstm or gru"),
        ({"model": {"load": ["a"]}}, r"model\.load: "),
        ({"task": {"kind": "classification", "classes": 5}}, r"task\.classes: "),
        ({"learning": {"optimizer": {"learning_rate": -1}}}, r"learning\.optimizer\.learning_rate: "),
    ],
)
def test_paths_name_what_was_written(sections: dict[str, Any], message: str, tmp_path: Path) -> None:
    """And nothing of the unions behind them."""
    with pytest.raises(ConfigError) as caught:
        loads(config_text(tmp_path, **sections))
    assert re.search(message, str(caught.value)), str(caught.value)
    assert not re.search(r"constrained|literal|load\.load|function-", str(caught.value)), str(caught.value)


def test_saying_what_is_the_default_anyway_changes_no_fingerprint(tmp_path: Path) -> None:
    """A checkpoint goes on when its optimizer is written down; another one's is another."""
    prints = [
        loads(config_text(tmp_path, learning={"optimizer": optimizer} if optimizer else {})).fingerprint()
        for optimizer in (None, {"kind": "adam"}, {"kind": "sgd"})
    ]
    assert prints[0] == prints[1] != prints[2]
