"""``learnd init``: a commented example configuration, or one that fits given records."""

import argparse
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learnd.core.errors import UsageError

if TYPE_CHECKING:
    from learnd.cli.guess import Guess
    from learnd.config.settings import Settings

_TOPIC = "kafka://"


def execute(options: argparse.Namespace) -> int:
    """Write the configuration to a new file; return the exit code."""
    if options.path.exists():
        raise UsageError(f"{options.path} exists; name another file, or remove it first")
    if options.origin is None:
        text, found = resources.files("learnd.config").joinpath("starter.yaml").read_text(encoding="utf-8"), ""
    else:
        text, found = _fitting(options.origin)
    try:
        with options.path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{options.path} exists; name another file, or remove it first") from None
    except OSError as error:
        raise UsageError(f"{options.path} cannot be written: {error.strerror}") from None
    print(f"{found}wrote {options.path}; next: learnd run {options.path}")
    return 0


def _fitting(origin: str) -> tuple[str, str]:
    """Return the text of a configuration for the records at *origin*, and the report on them."""
    import yaml

    from learnd.cli.data_report import report
    from learnd.config.loader import from_values, loads

    source, guess = _topic(origin) if origin.startswith(_TOPIC) else _file(Path(origin))
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in source.pop("name")).strip("._-") or "learnd"
    values: dict[str, Any] = {
        "name": name,
        "data_dir": f"data/{name}",
        "source": {**source, **guess.source},
        "decode": guess.decode,
        **guess.sections,
        "model": {"kind": "mlp"},
        "dead_letter": {"path": f"data/{name}-rejects.jsonl"},
        "predictions": {"path": f"data/{name}-predictions.jsonl"},
    }
    found = report(
        from_values({key: value for key, value in values.items() if key not in ("dead_letter", "predictions")})
    )
    notes = "".join(f"# - {note}\n" for note in guess.notes)
    head = f"# A configuration for {origin}, made from its first records by `learnd init --from`.\n"
    head += f"# Check these guesses:\n{notes}" if notes else ""
    text = head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    loads(text)
    return text, f"{found.text}\n\n"


def _file(path: Path) -> tuple[dict[str, Any], "Guess"]:
    from learnd.cli.data_report import RECORDS
    from learnd.cli.guess import first_bytes, guess_csv, guess_encoding, guess_json, parsed_records
    from learnd.sources.lines import Lines, marked_encoding
    from learnd.sources.settings import FileSettings

    start = first_bytes(path)
    source: dict[str, Any] = {"kind": "file", "path": str(path)}
    if FileSettings(**source).resolved_format() is None:
        source["format"] = "jsonl" if start.lstrip()[:1] in (b"{", b"[") else "csv"
    if marked_encoding(start) is None and (encoding := guess_encoding(start)) is not None:
        source["encoding"] = encoding
    lines = Lines(FileSettings(**source, header=False), 1 << 20)
    try:
        values = [line for _ in range(RECORDS) if (line := lines.read()) is not None]
    finally:
        lines.close()
    if FileSettings(**source).resolved_format() == "jsonl":
        guess = guess_json(parsed_records(values))
    else:
        texts = [value.decode(errors="replace") for value in values]
        guess = guess_csv(texts, tabs=FileSettings(**source).usual_delimiter() == "\t")
    if "encoding" in source:
        guess.notes.append(f"encoding: {source['encoding']} is a guess; look at letters beyond ASCII")
    return {"name": path.name.partition(".")[0], **source}, guess


def _topic(origin: str) -> tuple[dict[str, Any], "Guess"]:
    from learnd.cli.data_report import first_records
    from learnd.cli.guess import guess_json, parsed_records
    from learnd.config.loader import from_values
    from learnd.wiring.stream import make_decoder, make_source

    servers, _, topic = origin.removeprefix(_TOPIC).partition("/")
    if not servers or not topic:
        raise UsageError(f"--from: {origin!r} must be {_TOPIC}HOST:PORT/TOPIC, or a file")
    source = {"kind": "kafka", "bootstrap_servers": servers.split(","), "topics": [topic]}
    settings: Settings = from_values({"source": source, "features": ["x"], "target": "y", "model": {"kind": "linear"}})
    runs = list(first_records(make_source(settings, make_decoder(settings))))
    values = [value for run in runs for value in run.values if value is not None]
    records = [record for record in parsed_records(values) if isinstance(record, dict | list)]
    if not records:
        raise UsageError(
            f"--from: {topic} has no JSON among its first {len(values)} records; for CSV or float32, `learnd init` "
            "writes a configuration to start from"
        )
    return {"name": topic, **source}, guess_json(records)
