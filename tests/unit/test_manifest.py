"""What an export says of itself is true, fits a published schema, and cannot be changed unnoticed."""

import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import keras
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

import learnd
from learnd.config.settings import Settings
from learnd.core.errors import ConfigError, ExportDamagedError, ExportError, UsageError
from learnd.core.snapshot import Snapshot
from learnd.core.types import PrequentialScores
from learnd.export import audit, manifest, manifest_schema, model_card
from learnd.export.software import code_hashes
from learnd.wiring.pipeline import check, make_pipeline
from tests.support.exports import learned
from tests.support.helpers import SAVED_MODEL, run_cli, settings
from tests.unit.test_publish import _Child, _export, _exporter, _snapshot

pytestmark = pytest.mark.usefixtures("shared_traces")

SCHEMA = json.loads(manifest_schema.SCHEMA_FILE.read_text())


def _write_key(path: Path, key: Any = None) -> Path:
    """A new private key at *path*, its public half beside it with the suffix .pub."""
    key = key or ed25519.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two private keys with their public halves: own and other."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("own", "other"):
        _write_key(folder / f"{name}.pem")
    return folder


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Settings:
    return settings(
        tmp_path_factory.mktemp("data"),
        features={"a": {"min": -1, "max": 50}, "b": None, "c": None},
        export={"signing_key_file": str(keys / "own.pem"), "formats": ["saved_model", "tflite"]},
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, chosen: Settings) -> Path:
    """The folder of two signed exports of every format, one after the other."""
    folder = tmp_path_factory.mktemp("exports")
    pipeline = make_pipeline(chosen)
    maker = _exporter(folder, chosen, pipeline, _Child())
    for samples in (10, 20):
        assert _export(maker, _snapshot(chosen, pipeline, samples)).error == ""
    return folder


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    """A copy of the newest export, to do harm to."""
    return Path(shutil.copytree(published / "latest", tmp_path / "copy", symlinks=True))


def _read(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "learnd.json").read_text())
    return document


def test_the_schema_file_is_what_the_classes_say() -> None:
    """Whoever changes a class of the manifest publishes a new schema: `manifest_schema.schema()` prints it."""
    assert manifest_schema.schema() == SCHEMA
    assert json.loads(run_cli("schema", "--manifest").stdout) == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_manifest_fits_the_schema_and_tells_where_it_came_from(published: Path, chosen: Settings) -> None:
    """Names, types, ranges, scales, offsets, errors, versions, code, parent, key: all of it, and true."""
    documents = [_read(published / number) for number in ("1", "2")]
    for document in documents:
        jsonschema.validate(document, SCHEMA)
    first, second = documents
    assert (first["parent"], second["parent"]["number"]) == (None, 1)
    assert second["parent"]["manifest_sha256"] == hashlib.sha256((published / "1/learnd.json").read_bytes()).hexdigest()
    assert (second["number"], second["samples"], second["updates"]) == (2, 20, 20)
    assert second["features"][0] == {
        "name": "a",
        "input": "a",
        "min": -1.0,
        "max": 50.0,
        "missing": "mean",
        "season": None,
        "indicator": False,
    }
    assert [feature["name"] for feature in second["features"]] == ["a", "b", "c"]
    assert second["offsets"] == [{"topic": "t", "partition": 0, "next_offset": 7}]
    assert second["links"]["saved_model.pb"] == "saved_model/saved_model.pb"
    assert second["prequential"]["live"] == {"loss": 0.5, "absolute_error": 1.0, "mean_loss": 0.6}
    assert second["prequential"]["averaged"]["loss"] == 0.4
    assert second["config_sha256"] == chosen.digest()
    assert second["versions"]["learnd"] == learnd.__version__
    assert second["versions"]["numpy"] == np.__version__
    assert sorted(second["code_sha256"]) == ["learnd"]
    assert sorted(second["formats"]) == ["saved_model", "tflite"]
    assert "MODEL_CARD.md" in second["files"]


def test_the_scales_are_those_of_the_exported_weights(published: Path, chosen: Settings) -> None:
    """Mean and spread by feature, as the model in the export applies them."""
    pipeline = make_pipeline(chosen)
    taken = _snapshot(chosen, pipeline)
    network = pipeline.model.averaged._network
    for variable, weight in zip(network.served_state(), taken.weights, strict=True):
        variable.assign(weight)
    scaling = _read(published / "2")["scaling"]
    assert sorted(scaling) == ["inputs", "target"]
    np.testing.assert_array_equal(scaling["inputs"]["mean"], network.inputs_scaler.shift.numpy())
    np.testing.assert_array_equal(scaling["target"]["spread"], network.target_scaler.spread.numpy())
    assert len(scaling["inputs"]["spread"]) == 3


def test_users_code_is_hashed_with_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same file gives the same hash, another one another."""
    package = tmp_path / "shop_model"
    package.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text("a = 1\n")
    before = code_hashes(["shop_model.net:make"])
    assert sorted(before) == ["learnd", "shop_model"]
    assert code_hashes(["shop_model.net:make", "shop_model:other"]) == before
    (package / "net.py").write_text("a = 2\n")
    assert code_hashes(["shop_model.net:make"])["shop_model"] != before["shop_model"]


def test_what_is_not_known_is_null(chosen: Settings) -> None:
    """JSON has no NaN, and strict readers refuse it."""
    taken = _snapshot(chosen, make_pipeline(chosen))
    known = manifest.provenance(taken.__class__(**{**_fields(taken), "signal": PrequentialScores(0, *4 * [math.nan])}))
    assert known["prequential"]["live"] == {"loss": None, "absolute_error": None, "mean_loss": None}
    json.dumps(known, allow_nan=False)


def _fields(taken: Any) -> dict[str, Any]:
    return {name: getattr(taken, name) for name in taken.__dataclass_fields__}


def test_a_manifest_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    """The export fails; its readers never see a manifest that they do not understand."""
    with pytest.raises(ExportError, match="does not fit its schema: number: "):
        manifest.write(tmp_path, {"number": 0})
    assert list(tmp_path.iterdir()) == []


def _run_the_code_in_the_card(folder: Path, *, blocks: int) -> None:
    found = re.findall(r"```python\n(.*?)```", (folder / model_card.FILE_NAME).read_text(), re.DOTALL)
    assert len(found) == blocks
    program = "import numpy as np\nrow = np.ones((1, 3), np.float32)\nrows = row\n"
    for block in found:
        program += f"{block}\nassert np.isfinite(answers['prediction']).all()\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_manifest_that_is_torn_is_named(text: str, copy: Path) -> None:
    """By `inspect` without options, too."""
    (copy / "learnd.json").write_text(text)
    done = run_cli("inspect", str(copy))
    assert (done.returncode, done.stdout) == (ExportDamagedError.exit_code, "")
    assert f"{copy / 'learnd.json'} is not a readable manifest" in done.stderr


def test_the_code_in_the_card_runs(published: Path) -> None:
    """What it says on loading each format is Python that answers, with nothing but the export's folder."""
    _run_the_code_in_the_card(published / "latest", blocks=2)


@pytest.mark.slow
def test_the_card_loads_the_other_formats_too_and_says_which_there_are_not(tmp_path: Path) -> None:
    """A small model has nothing for `tflite_dynamic` to round; who misses the file finds the reason."""
    formats = ["tflite_float16", "tflite_dynamic", "tflite_int8", "tflite_training", "keras", "hdf5", "onnx"]
    learned(tmp_path, export={"formats": formats})
    folder = tmp_path / "exports" / "latest"
    _run_the_code_in_the_card(folder, blocks=5)
    assert "No tflite_dynamic: no weight of the model has" in (folder / model_card.FILE_NAME).read_text()


def test_the_card_says_what_goes_in_and_comes_out_and_is_made_from_the_manifest_alone(published: Path) -> None:
    """So that it can be made again, and never says more than the manifest."""
    document = _read(published / "latest")
    text = (published / "latest" / model_card.FILE_NAME).read_text()
    assert text == model_card.card(document)
    for said in ("| 0 | `a` | -1 | 50 |", "`prediction`, float32, shape (any, 1)", "20 samples", "`t` | 0 | 7"):
        assert said in text
    assert document["signing_key"]["id"] in text


@pytest.mark.parametrize(
    ("sections", "scales", "said"),
    [
        (
            {"task": {"kind": "forecast", "window": 4, "horizon": 2}, "target": None},
            {"inputs": (4, 3), "change": (6,)},
            ("The last 4 readings of one key", "`a+1`, `b+1`, `c+1`, `a+2`"),
        ),
        ({"task": {"kind": "reconstruction"}, "target": None}, {"inputs": (3,)}, ("`score`, float32, shape (any)",)),
        (
            {"task": {"kind": "classification", "classes": ["ok", "worn"]}, "target": "state"},
            {"inputs": (3,)},
            ("Probabilities of state, in this order: `ok`, `worn`.",),
        ),
        (
            {"model": {"kind": "factory", "factory": "tests.unit.test_manifest:make_model"}},
            {"inputs": (3,), "target": (1,)},
            ("`prediction`, float32, shape (any, 1)",),
        ),
    ],
)
def test_every_task_has_a_manifest_that_fits_and_a_card(
    sections: dict[str, Any], scales: dict[str, tuple[int, ...]], said: tuple[str, ...], tmp_path: Path
) -> None:
    """Windows, scores, classes and users' models too."""
    chosen = settings(tmp_path / "data", export=SAVED_MODEL, **sections)
    pipeline = make_pipeline(chosen)
    weights = pipeline.model.averaged.weights()
    x = np.ones((9, *pipeline.model.averaged._network.row_shape), np.float32)
    taken = Snapshot(weights, x, 1, 1, {}, 0.0, 0.0, PrequentialScores(1, 1.0, 1.0, 1.0, 1.0), pipeline.model.classes())
    assert _export(_exporter(tmp_path / "exports", chosen, pipeline, _Child()), taken).error == ""
    document = _read(tmp_path / "exports" / "latest")
    jsonschema.validate(document, SCHEMA)
    assert {name: np.shape(scale["mean"]) for name, scale in document["scaling"].items()} == scales
    text = (tmp_path / "exports" / "latest" / model_card.FILE_NAME).read_text()
    for words in said:
        assert words in text
    assert sorted(document["code_sha256"]) == ["learnd", *(["tests"] if "model" in sections else [])]
    assert audit.audit(tmp_path / "exports" / "latest").sound


def make_model(input_shape: tuple[int, ...], outputs: int) -> keras.Model:
    """A user's own."""
    return keras.Sequential([keras.layers.Input(input_shape), keras.layers.Dense(outputs)])


def test_names_cannot_break_the_card(published: Path) -> None:
    """They come from the stream: a label may be anything."""
    document = {**_read(published / "latest"), "classes": ["a|b", "`x`", "<script>", "line\nbreak"]}
    (line,) = [line for line in model_card.card(document).splitlines() if line.startswith("Probabilities")]
    assert line.endswith("`a b`, ` x `, ` script `, `line break`.")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _edit(folder: Path, **changes: Any) -> None:
    (folder / "learnd.json").write_text(json.dumps({**_read(folder), **changes}))


HARM: dict[str, tuple[Callable[[Path], Any], str]] = {
    "changed": (lambda copy: _flip(copy / "model.tflite"), "changed: model.tflite"),
    "changed deep inside": (
        lambda copy: _flip(copy / "saved_model" / "variables" / "variables.data-00000-of-00001"),
        "changed: saved_model/variables",
    ),
    "missing": (lambda copy: (copy / "MODEL_CARD.md").unlink(), "missing: MODEL_CARD.md"),
    "additional": (lambda copy: (copy / "saved_model" / "x.so").write_text("x"), "additional: saved_model/x.so"),
    "another manifest inside": (
        lambda copy: (copy / "saved_model" / "learnd.json").write_text("x"),
        "additional: saved_model/learnd.json",
    ),
    "a link in a file's place": (
        lambda copy: (
            (copy / "model.tflite").rename(copy.parent / "elsewhere"),
            (copy / "model.tflite").symlink_to(copy.parent / "elsewhere"),
        ),
        "changed: model.tflite",
    ),
    "manifest changed": (lambda copy: _edit(copy, samples=10**9), "signature: wrong"),
    "manifest unreadable": (lambda copy: (copy / "learnd.json").write_text("{"), "is not JSON"),
    "manifest without a needed key": (lambda copy: _edit(copy, features=3), "features"),
    "signature cut off": (lambda copy: (copy / "learnd.json.sig").unlink(), "signature: missing"),
    "signature changed": (lambda copy: _flip(copy / "learnd.json.sig"), "signature: wrong"),
    "signature and its key taken away": (
        lambda copy: ((copy / "learnd.json.sig").unlink(), _edit(copy, signing_key=None)),
        "signature: not signed",
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_every_change_of_an_export_is_found(harm: str, copy: Path, keys: Path) -> None:
    """By whoever holds the public key."""
    assert audit.audit(copy, keys / "own.pub").sound
    act, expected = HARM[harm]
    act(copy)
    found = audit.audit(copy, keys / "own.pub")
    assert not found.sound
    assert expected in found.findings()


def test_any_flipped_byte_is_found(copy: Path, keys: Path) -> None:
    """One in each file, wherever it lies."""
    random = np.random.default_rng(0)
    for path in sorted(p for p in copy.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        data = bytearray(whole)
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        path.write_bytes(data)
        assert not audit.audit(copy, keys / "own.pub").sound, path
        path.write_bytes(whole)
    assert audit.audit(copy, keys / "own.pub").sound


def test_a_copy_that_followed_the_links_is_sound_until_one_differs(published: Path, tmp_path: Path, keys: Path) -> None:
    """As stores and archives make it; second copies are checked like the first, and a link may lead nowhere else."""
    copy = Path(shutil.copytree(published / "latest", tmp_path / "copy"))
    assert not any(path.is_symlink() for path in copy.iterdir())
    assert audit.audit(copy, keys / "own.pub").sound
    _flip(copy / "variables" / "variables.index")
    assert audit.audit(copy, keys / "own.pub").additional == ("variables/variables.index",)
    shutil.rmtree(copy / "variables")
    (copy / "variables").symlink_to("/etc")
    assert audit.audit(copy, keys / "own.pub").additional == ("variables",)


def test_a_signature_counts_for_its_own_key_alone(published: Path, keys: Path) -> None:
    """Somebody else's is told apart from a wrong one; without a key it is said that nothing was checked."""
    assert audit.audit(published / "latest", keys / "other.pub").signature == "of another key"
    unchecked = audit.audit(published / "latest")
    assert (unchecked.sound, unchecked.signature) == (True, "not checked")


def test_inspect_tells_by_its_exit_status(copy: Path, keys: Path) -> None:
    """0 for a sound export, 66 for any other, 64 for a wrong question."""
    good = run_cli("inspect", str(copy), "--verify", "--public-key", str(keys / "own.pub"))
    assert (good.returncode, json.loads(good.stdout)["signature"]) == (0, "good"), good.stderr
    stranger = run_cli("inspect", str(copy), "--verify", "--public-key", str(keys / "other.pub"))
    assert (stranger.returncode, "of another key" in stranger.stderr) == (66, True)
    _flip(copy / "model.tflite")
    bad = run_cli("inspect", str(copy), "--verify")
    assert (bad.returncode, json.loads(bad.stdout)["changed"]) == (66, ["model.tflite"])
    assert "changed: model.tflite" in bad.stderr
    for arguments in (["--public-key", "x"], ["--verify", "--public-key", "x"]):
        assert run_cli("inspect", str(copy), *arguments).returncode == 64
    assert run_cli("inspect", str(copy.parent), "--verify").returncode == 64


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_checks_the_signature_as_the_card_says(published: Path, keys: Path) -> None:
    """The command in the card, for those without learnd."""
    text = (published / "latest" / model_card.FILE_NAME).read_text()
    (command,) = re.findall(r"`(openssl pkeyutl [^`]+)`", text)
    arguments = command.replace("FILE", str(keys / "own.pub")).split()
    done = subprocess.run(arguments, cwd=published / "latest", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Verified Successfully" in done.stdout
    digest = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", keys / "own.pub", "-outform", "DER"], capture_output=True, check=True
    )
    assert hashlib.sha256(digest.stdout).hexdigest() == _read(published / "latest")["signing_key"]["id"]


def test_the_private_key_is_nowhere_in_an_export(published: Path, keys: Path) -> None:
    """Neither its text nor its path."""
    secret = (keys / "own.pem").read_bytes().splitlines()[1]
    for path in published.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes()
            assert b"own.pem" not in path.read_bytes()


def test_a_key_that_does_not_sign_is_told_before_the_stream_is_joined(tmp_path: Path) -> None:
    """With the key of the configuration and the way out."""
    _write_key(tmp_path / "ec.pem", ec.generate_private_key(ec.SECP256R1()))
    (tmp_path / "junk.pem").write_text("junk")
    for name, message in (("none.pem", "cannot be read"), ("junk.pem", "openssl genpkey"), ("ec.pem", "Ed25519")):
        wrong = settings(tmp_path / "data", export={"signing_key_file": str(tmp_path / name)})
        with pytest.raises(ConfigError, match=message):
            check(wrong)
        with pytest.raises(ConfigError, match=message) as caught:
            make_pipeline(wrong)
        assert caught.value.problems[0].path == "export.signing_key_file"
    with pytest.raises(UsageError, match="pubout"):
        audit.audit(_an_export(tmp_path), tmp_path / "ec.pub")


def _an_export(folder: Path) -> Path:
    (folder / "learnd.json").write_text("{}")
    return folder


def test_an_export_of_an_older_learnd_is_still_checked(copy: Path) -> None:
    """By its hashes; what else its manifest says is of another form."""
    old = {"format_version": 1, "number": 2, "files": _read(copy)["files"]}
    (copy / "learnd.json").write_text(json.dumps(old))
    for path in [copy / "learnd.json.sig", *(path for path in copy.iterdir() if path.is_symlink())]:
        path.unlink()
    assert audit.audit(copy).sound
    _flip(copy / "model.tflite")
    assert audit.audit(copy).changed == ("model.tflite",)


@pytest.mark.parametrize("text", ["[]", "{}", '{"formats": {}, "features": []}'])
def test_predict_refuses_a_manifest_that_lacks_what_it_needs(tmp_path: Path, text: str) -> None:
    """With the file and the fields, not with a traceback."""
    (tmp_path / "learnd.json").write_text(text)
    done = run_cli("predict", str(tmp_path))
    assert done.returncode == 66
    assert f"{tmp_path / 'learnd.json'} has no " in done.stderr
    assert "Traceback" not in done.stderr
