"""Files that grow, in every encoding and with every line end: each whole line comes once, wherever reading stopped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.core.errors import DataLossError
from learnd.core.types import Samples, TopicPartition
from learnd.wiring.stream import make_decoder, make_source
from tests.support.record_files import HEAD, PLAIN, Case, loaded, outcome, read

STREAM = "ts,m,temp,flow,power\n# c\n" + "".join(
    f"2024-01-15 12:{i:02}:00,Ä{i % 3},{i}.5,{i},{-i}\n" for i in range(20)
)
FORMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain": ("\n", "utf-8", {}),
    "Windows": ("\r\n", "utf-8", {}),
    "old Mac": ("\r", "utf-8", {}),
    "UTF-16 with mark": ("\r\n", "utf-16", {}),
    "UTF-16, old Mac": ("\r", "utf-16-be", {"encoding": "utf-16-be"}),
    "cp1252": ("\n", "cp1252", {"encoding": "cp1252"}),
    "skipped": ("\n", "utf-8", {"skip_lines": 1, "skip_after_header": 2}),
    "UTF-32": ("\n", "utf-32", {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_grows_is_read_once_in_every_form(form: str, tmp_path: Path) -> None:
    """Cut anywhere, also within a character or a line end, and continued: each whole line comes once."""
    ends, encoding, options = FORMS[form]
    text = ("junk\n" if "skip_lines" in options else "") + STREAM
    if "skip_after_header" in options:
        text = text.replace("power\n", "power\nunits\nmore\n")
    data = text.replace("\n", ends).encode(encoding)
    case = Case(data, source={"comment": "#", **options}, decode={"key": "m"})
    settings = loaded(case, tmp_path)
    whole, rejects = outcome(settings)
    assert (len(whole), rejects) == (20, [])
    assert whole.keys.tolist() == [f"Ä{i % 3}" for i in range(20)]
    path = tmp_path / case.name
    unit = len(ends.encode(encoding)) if encoding in ("utf-16-be",) else 1
    for cut in (*range(len(data) // 2, len(data) // 2 + 90, 7 * unit), len(data) - 1):
        path.write_bytes(data[:cut])
        first = list(read(settings))
        position = {origin: place for batch in first[-1:] for origin, place in batch.positions.items()}
        torn = position[TopicPartition(case.name, 0)].offset - 1
        path.write_bytes(data)
        second = list(read(settings, start=position))
        samples = [batch.samples for batch in (*first, *second) if len(batch.samples)]
        offsets = [offset for part in samples for offset in part.offsets.tolist() if offset != torn]
        assert offsets == [offset for offset in whole.offsets.tolist() if offset != torn]
        joined = Samples.concat(samples)
        kept = joined.offsets != torn
        np.testing.assert_array_equal(joined.x[kept], whole.x[whole.offsets != torn])


def test_a_line_end_that_was_torn_does_not_look_like_an_old_one(tmp_path: Path) -> None:
    """The header was written as far as its carriage return; what follows decides."""
    settings = loaded(Case(HEAD.replace("\n", "\r")), tmp_path)
    decoder = make_decoder(settings)
    source = make_source(settings, decoder)
    source.open({})
    start = source.positions()
    source.close()
    (tmp_path / "data.csv").write_bytes(PLAIN.replace("\n", "\r").encode())
    assert [len(batch.samples) for batch in read(settings, start=dict(start))] == [2]


def test_other_lines_before_the_data_are_another_file(tmp_path: Path) -> None:
    """Offsets count from the data: with another number of skipped lines, they would be those of other lines."""
    settings = loaded(Case("a\nb\n" + PLAIN, source={"skip_lines": 2}), tmp_path)
    (batch,) = read(settings)
    other = settings.model_copy(update={"source": settings.source.model_copy(update={"skip_after_header": 1})})
    with pytest.raises(DataLossError):
        list(read(other, start=batch.positions))
    assert not list(read(settings, start=batch.positions))
