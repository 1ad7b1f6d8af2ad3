"""Files as people have them, each with its right values: through the real file source and the real decoders.

A case is the bytes of a file, the sections of its configuration, and what becomes of it: the samples, the reasons of
its rejects with a part of their messages, or a part of the error that ends the start.
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.cli.data_report import report
from learnd.core.errors import ConfigError
from tests.support.record_files import GERMAN, HEAD, ISO, NAN, PLAIN, ROWS, T0, Case, loaded, outcome


def timed(*times: str, head: str = HEAD) -> str:
    """PLAIN, with these times."""
    numbers = ["24.082,4.114,15.855", "14.889,4.708,5.472"]
    return head + "".join(f"{time},{row}\n" for time, row in zip(times, numbers, strict=False))


def cells(*temps: str) -> str:
    """PLAIN, with these temperatures."""
    return HEAD + "".join(f"2024-01-15 12:0{i}:00,{temp},1,2\n" for i, temp in enumerate(temps))


def quoted(text: str) -> str:
    return f'"{text}"'


def number_case(example: str, *pairs: tuple[str, float]) -> Case:
    """Temperatures in a format, quoted."""
    return Case(
        cells(*(quoted(text) for text, _ in pairs)),
        [(number, 1.0, 2.0) for _, number in pairs],
        [T0 + 60 * i for i in range(len(pairs))],
        decode={"number_format": example},
    )


def json_lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def nested(wrap: Any) -> str:
    """Two records, each as *wrap* makes it from time, temp, flow and power."""
    return json_lines(*(wrap(time, *row) for time, row in zip(ISO, ROWS, strict=True)))


STRINGS = nested(lambda t, a, b, y: {"ts": t, "temp": str(a), "flow": str(b), "power": y})
DEBEZIUM = nested(
    lambda t, a, b, y: {"payload": {"op": "u", "before": None, "after": {"temp": a, "flow": b}}, "power": y, "ts": t}
)
OF_DEBEZIUM = {"temp": {"path": "payload.after.temp"}, "flow": {"path": "payload.after.flow"}}
MEAN = {"temp": {"missing": "mean"}, "flow": {}}
TWENTY = {"temp": {"missing": 20.0}, "flow": {}}
NO_NAN = {"temp": {"missing": "reject"}, "flow": {}}
ONE = [(24.082, 4.114, 15.855)]

CSV_CASES = {
    "plain": Case(PLAIN, ROWS),
    "semicolon found": Case(PLAIN.replace(",", ";"), ROWS),
    "tab found": Case(PLAIN.replace(",", "\t"), ROWS),
    "bar found": Case(PLAIN.replace(",", "|"), ROWS),
    "tsv": Case(PLAIN.replace(",", "\t"), ROWS, name="data.tsv"),
    "gzipped": Case(PLAIN.replace(",", ";"), ROWS, name="data.csv.gz"),
    "delimiter only in decode": Case(PLAIN.replace(",", "|"), ROWS, decode={"delimiter": "|"}),
    "whitespace named": Case(
        "  temp   flow\tpower\n 24.082  4.114   15.855  \n14.889 4.708 5.472\n",
        ROWS,
        [0.0, 0.0],
        source={"delimiter": "whitespace"},
        decode={"time": None},
    ),
    "delimiter of the error": Case(
        PLAIN.replace(",", ";").replace("power\n", "power, kW\n"), error='with source.delimiter: ";" they are ts, temp'
    ),
    "spreadsheet's separator line": Case("sep=;\n" + PLAIN.replace(",", ";"), ROWS),
    "no header, semicolons": Case(
        PLAIN.partition("\n")[2].replace(",", ";"),
        ROWS,
        source={"header": False},
        decode={"columns": ["ts", "temp", "flow", "power"]},
    ),
    "no header, wrong delimiter in the message": Case(
        GERMAN.partition("\n")[2],
        [],
        (),
        [(0, "wrong_type", 'set decode.delimiter: ";"'), (1, "wrong_type", "889;4'")],
        source={"header": False},
        decode={"columns": ["ts", "temp", "flow", "power"]},
    ),
    "decimal comma": Case(GERMAN, ROWS, decode={"number_format": "1234,56"}),
    "decimal comma, not told": Case(
        GERMAN,
        [],
        (),
        [
            (0, "wrong_type", 'temp is \'24,082\', not a number; set decode.number_format: "1,234.56" or "1234,56"'),
            (1, "wrong_type", "number_format"),
        ],
    ),
    "decimal comma for sure": Case(cells('"24,5"'), [], (), [(0, "wrong_type", 'set decode.number_format: "1234,56"')]),
    "comma and point": number_case("1,234.56", ("1,234.5", 1234.5), ("-12,345,678", -12345678.0), ("7.25", 7.25)),
    "point and comma": number_case("1.234,56", ("1.234,5", 1234.5), ("1234,5", 1234.5), ("-,5", -0.5)),
    "space and comma": number_case("1 234,56", ("1 234,5", 1234.5), ("1\u00a0234,5", 1234.5), ("1\u202f234", 1234.0)),
    "apostrophe": number_case("1'234.56", ("1'234.5", 1234.5), ("1\u2019234.5", 1234.5), ("\u221212", -12.0)),
    "exponent with a comma": number_case("1234,56", ("1,5E+03", 1500.0), ("+2,5e-1", 0.25)),
    "a point is no thousands separator here": Case(
        cells('"1.5"', '"0.500"', '"12.34"'),
        [],
        (),
        [(0, "wrong_type", '"1234.56"'), (1, "wrong_type", "0.500"), (2, "wrong_type", "12.34")],
        decode={"number_format": "1.234,56"},
    ),
    "underscores are no digits": Case(cells("1_0"), [], (), [(0, "wrong_type", "1_0")]),
    "spaces in header and cells": Case(PLAIN.replace(",", " , "), ROWS),
    "spaces before quotes": Case(
        'ts, "temp", flow , "power"\n2024-01-15 12:00:00, "24.082" , "4.114", "15.855" \n', ONE
    ),
    "space before the time": Case("temp, ts, flow, power\n24.082, 2024-01-15 12:00:00, 4.114, 15.855\n", ONE),
    "quoted delimiter": Case(
        'ts,"temp, in",flow,power\n2024-01-15 12:00:00,24.082,4.114,15.855\n',
        ONE,
        sections={"features": ["temp, in", "flow"]},
    ),
    "keys without their spaces": Case(
        'ts,m,temp,flow,power\n2024-01-15 12:00:00, m1,1,2,3\n2024-01-15 12:01:00,"m1" ,1,2,3\n',
        [(1, 2, 3)] * 2,
        keys=["m1", "m1"],
        decode={"key": "m"},
    ),
    "open quote": Case(cells('"1'), [], (), [(0, "unparsable", "quote of cell 2 is not closed")]),
    "too few cells": Case(HEAD + "1,2,3\n", [], (), [(0, "unparsable", "3 columns, expected 4")]),
    "another delimiter in the data": Case(
        PLAIN + "2024-01-15 12:02:00;1;2;3\n",
        ROWS,
        rejects=[(2, "unparsable", 'expected 4; set decode.delimiter: ";"')],
    ),
    "delimiter at the end": Case(
        HEAD + "2024-01-15 12:00:00,1,2,3,\n", [], (), [(0, "unparsable", "the last is empty")]
    ),
    "empty last column": Case(PLAIN.replace("\n", ",\n"), ROWS),
    "name twice": Case(
        "ts,temp,flow,power,temp\n1,2,3,4,-999\n", error="temp is the name of the columns 2, 5; give each its own name"
    ),
    "name twice, not used": Case("ts,temp,x,flow,x,power\n2024-01-15 12:00:00,24.082,0,4.114,0,15.855\n", ONE),
    "name twice, named anew": Case(
        "ts,temp,flow,power,temp\n2024-01-15 12:00:00,24.082,4.114,15.855,-999\n",
        ONE,
        decode={"columns": ["ts", "temp", "flow", "power", "old"]},
    ),
    "capitals": Case("ts,Temp,flow,power\n1,2,3,4\n", error="temp is written Temp"),
    "units": Case(cells("3%", "1 kW"), [], (), [(0, "wrong_type", "a unit or a sign"), (1, "wrong_type", "unit")]),
    "a line of units": Case(cells("°C"), [], (), [(0, "wrong_type", "source.skip_after_header")]),
    "a comment for a header": Case("# c\n" + PLAIN, error="set source.skip_lines, or source.comment"),
    "no header after what is skipped": Case(PLAIN, error="is empty after 9 skipped lines", source={"skip_lines": 9}),
    "gzipped without its name": Case(gzip.compress(PLAIN.encode()), error="its name must end in .gz"),
    "a spreadsheet": Case(b"PK\x03\x04" + bytes(99), error="save it as CSV"),
    "old Mac": Case(PLAIN.replace("\n", "\r"), ROWS),
    "Windows": Case(PLAIN.replace("\n", "\r\n"), ROWS),
    "UTF-8 with mark": Case(b"\xef\xbb\xbf" + PLAIN.encode(), ROWS),
    "UTF-16 with mark": Case(PLAIN.replace("\n", "\r\n").encode("utf-16"), ROWS),
    "UTF-16 big-endian with mark": Case(b"\xfe\xff" + PLAIN.encode("utf-16-be"), ROWS),
    "UTF-16 without mark": Case(PLAIN.encode("utf-16-le"), ROWS, source={"encoding": "utf-16-le"}),
    "UTF-16 without mark, not told": Case(PLAIN.encode("utf-16-le"), error="set source.encoding: utf-16-le"),
    "UTF-16, old Mac, gzipped": Case(PLAIN.replace("\n", "\r").encode("utf-16"), ROWS, name="data.csv.gz"),
    "Latin-1": Case(
        PLAIN.replace("temp", "größe").encode("latin-1"),
        ROWS,
        source={"encoding": "latin-1"},
        sections={"features": ["größe", "flow"]},
    ),
    "cp1252 not told": Case(
        PLAIN.replace("temp", "größe").encode("cp1252"), error="0xf6.*set source.encoding, such as cp1252"
    ),
    "cp1252 in the data": Case(
        "ts,m,temp,flow,power\n2024-01-15 12:00:00,Öl,1,2,3\n".encode("cp1252"),
        [],
        (),
        [(0, "bad_utf8", "set encoding: cp1252")],
        decode={"key": "m"},
    ),
    "keys in cp1252": Case(
        "ts,m,temp,flow,power\n2024-01-15 12:00:00,Öl \u20ac,1,2,3\n".encode("cp1252"),
        [(1, 2, 3)],
        keys=["Öl €"],
        source={"encoding": "cp1252"},
        decode={"key": "m"},
    ),
    "a byte that cp1252 does not have": Case(
        b"ts,m,temp,flow,power\n2024-01-15 12:00:00,\x81,1,2,3\n2024-01-15 12:00:00,a,1,2,3\n",
        [(1, 2, 3)],
        rejects=[(0, "bad_utf8", "byte")],
        source={"encoding": "cp1252"},
        decode={"key": "m"},
    ),
    "encoding against the mark": Case(
        b"\xef\xbb\xbf" + PLAIN.encode(), error="begins with the mark of utf-8", source={"encoding": "cp1252"}
    ),
    "skipped lines and units": Case(
        "Logger 7\nsince 2024\n" + PLAIN.replace(HEAD, HEAD + ",°C,l/s,kW\n"),
        ROWS,
        source={"skip_lines": 2, "skip_after_header": 1},
    ),
    "comments": Case("# a logger\n" + PLAIN.replace(HEAD, HEAD + "# pause\n  # more\n"), ROWS, source={"comment": "#"}),
    "a comment without the option": Case(PLAIN + "# end\n", ROWS, rejects=[(2, "unparsable", "1 columns, expected 4")]),
    "blank lines before the header": Case("\n\n" + PLAIN, ROWS),
    "NaN and a number": Case(
        cells("NaN", "nan", "2"),
        [(20, 1, 2), (20, 1, 2), (2, 1, 2)],
        [T0, T0 + 60, T0 + 120],
        sections={"features": TWENTY},
    ),
    "words for nothing": Case(
        cells("NULL", "N/A", " #N/A ", '"null"'),
        [(20, 1, 2)] * 4,
        [T0 + 60 * i for i in range(4)],
        sections={"features": TWENTY},
    ),
    "words and the mean": Case(cells("NULL", "NaN"), [(NAN, 1, 2)] * 2, sections={"features": MEAN}),
    "words without a stand-in": Case(
        cells("NULL", "NaN", ""),
        [],
        (),
        [
            (0, "missing_field", "set features.temp.missing"),
            (1, "not_finite", "set features.temp.missing"),
            (2, "missing_field", "temp is empty"),
        ],
        sections={"features": NO_NAN},
    ),
    "own words": Case(
        cells("-", "off", "NULL"),
        [(20, 1, 2)] * 2,
        rejects=[(2, "wrong_type", "decode.missing_values")],
        decode={"missing_values": ["-", "OFF"]},
        sections={"features": TWENTY},
    ),
    "a number for nothing": Case(
        cells("-999", "-999.0", "-999.5"),
        [(20, 1, 2), (20, 1, 2), (-999.5, 1, 2)],
        [T0, T0 + 60, T0 + 120],
        decode={"missing_values": [-999]},
        sections={"features": TWENTY},
    ),
    "a number for nothing, as target": Case(
        PLAIN.replace("5.472", "-999"),
        ONE,
        rejects=[(1, "missing_field", "power is -999")],
        decode={"missing_values": ["-999"], "missing_target": "reject"},
    ),
    "infinity is not nothing": Case(
        cells("inf"), [], (), [(0, "not_finite", "temp is inf")], sections={"features": TWENTY}
    ),
    "booleans": Case(
        cells("true", "False", "ON"),
        [(1, 1, 2), (0, 1, 2), (1, 1, 2)],
        [T0, T0 + 60, T0 + 120],
        decode={"booleans": "numbers"},
    ),
    "booleans, not told": Case(cells("true"), [], (), [(0, "wrong_type", "decode.booleans: numbers")]),
    "a secret": Case(
        cells("4711x", "12"),
        [],
        (),
        [(0, "wrong_type", "temp is (secret)"), (1, "out_of_range", "temp is (secret)")],
        sections={"features": {"temp": {"secret": True, "max": 5.0}, "flow": {}}},
    ),
}


def time_case(texts: Sequence[str], *, times: Sequence[float] | None = None, **decode: Any) -> Case:
    return Case(timed(*texts), ROWS[: len(texts)], times, decode=decode)


def bad_time(text: str, hint: str, **decode: Any) -> Case:
    return Case(timed(text), [], (), [(0, "bad_time", hint)], decode=decode)


TIME_CASES = {
    "German": time_case(["15.01.2024 12:00:00", "15.01.2024 12:01:00"], time_format="%d.%m.%Y %H:%M:%S"),
    "German, not told": bad_time("15.01.2024 12:00:00", 'set decode.time_format: "%d.%m.%Y %H:%M:%S"'),
    "no space before the noon": bad_time("Jan 15 2024 12:00PM", '"%b %d %Y %I:%M%p"'),
    "day or month first": bad_time("01/02/2024 12:00", '"%d/%m/%Y %H:%M" or "%m/%d/%Y %H:%M"'),
    "American": time_case(["01/15/2024 12:00 PM", "01/15/2024 12:01 PM"], time_format="%m/%d/%Y %I:%M %p"),
    "two patterns": time_case(
        ["15.01.2024 12:00:00.500", "15.01.2024 12:01"],
        times=[T0 + 0.5, T0 + 60],
        time_format=["%d.%m.%Y %H:%M:%S.%f", "%d.%m.%Y %H:%M"],
    ),
    "digits with a pattern": time_case(["202401151200", "202401151201"], time_format="%Y%m%d%H%M"),
    "digits": bad_time("202401151200", 'set decode.time_format: "%Y%m%d%H%M"'),
    "digits of a day": bad_time("20240115", 'set decode.time_format: "%Y%m%d"'),
    "serial dates": bad_time("45306.500000", "2024-01-15, set decode.time_format: excel"),
    "serial dates, told": time_case(["45306.5", "45306.500694444"], time_format="excel"),
    "seconds": time_case(["1705320000", "1705320060.0"]),
    "milliseconds": time_case(["1705320000000", "1705320060000"], time_unit="ms"),
    "microseconds": time_case(["1705320000000000", "1705320060000000"], time_unit="us"),
    "nanoseconds": time_case(["1705320000000000000", "1705320060000000000"], time_unit="ns"),
    "milliseconds for seconds": bad_time("1705320000000", "set decode.time_unit: ms"),
    "seconds for milliseconds": bad_time("1705320000", "set decode.time_unit: s", time_unit="ms"),
    "a count": bad_time("60", "set decode.time_numbers: any"),
    "a count, told": time_case(["60", "120"], times=[60.0, 120.0], time_numbers="any"),
    "zone": time_case(["2024-01-15 13:00", "2024-01-15 13:01"], time_zone="Europe/Berlin"),
    "zone in summer": time_case(["2024-07-15 14:00"], times=[1721044800.0], time_zone="Europe/Berlin"),
    "a named offset wins": time_case(["2024-01-15T12:00:00Z", "2024-01-15T17:31:00+05:30"], time_zone="Asia/Tokyo"),
    "an hour that is skipped": bad_time(
        "2024-03-31 02:30", "does not exist in Europe/Berlin", time_zone="Europe/Berlin"
    ),
    "an hour that comes twice": bad_time("2024-10-27 02:30", "decode.ambiguous_time", time_zone="Europe/Berlin"),
    "the first of two": time_case(
        ["2024-10-27 02:30"], times=[1729989000.0], time_zone="Europe/Berlin", ambiguous_time="first"
    ),
    "the second of two": time_case(
        ["2024-10-27 02:30"], times=[1729992600.0], time_zone="Europe/Berlin", ambiguous_time="second"
    ),
    "date and time of day": Case(
        "Date;Time;temp;flow;power\n15/01/2024;12.00.00;24.082;4.114;15.855\n15/01/2024;12.01.00;14.889;4.708;5.472\n",
        ROWS,
        decode={"time": "Date", "time_of_day": "Time", "time_format": "%d/%m/%Y %H.%M.%S"},
    ),
    "date and time of day, ISO": Case(
        "temp,d,flow,h,power\n24.082,2024-01-15,4.114,12:00,15.855\n", ONE, decode={"time": "d", "time_of_day": "h"}
    ),
    "no time": bad_time("soon", "set decode.time_format"),
}

JSON_CASES = {
    "plain": Case(nested(lambda t, a, b, y: {"ts": t, "temp": a, "flow": b, "power": y}), ROWS),
    "an envelope": Case(DEBEZIUM, ROWS, sections={"features": OF_DEBEZIUM}),
    "an envelope, not told": Case(
        DEBEZIUM,
        [],
        (),
        [(i, "missing_field", 'decode.paths: {"temp": "payload.after.temp", "flow"') for i in range(2)],
    ),
    "all in an envelope": Case(
        nested(lambda t, a, b, y: {"d": {"ts": t, "id": "m1", "temp": a, "flow": b, "power": y}}),
        ROWS,
        keys=["m1"] * 2,
        decode={"key": "id", "paths": {n: f"d.{n}" for n in ("ts", "id", "temp", "flow", "power")}},
    ),
    "a list": Case(
        nested(lambda t, a, b, y: {"ts": t, "values": [a, b, y]}),
        ROWS,
        decode={"paths": {"temp": "values[0]", "flow": "values[1]", "power": "values[-1]"}},
    ),
    "a record that is a list": Case(
        nested(lambda t, a, b, y: [t, a, b, y]),
        ROWS,
        decode={"paths": {"ts": "[0]", "temp": "[1]", "flow": "[2]", "power": "[3]"}},
    ),
    "named metrics": Case(
        nested(
            lambda t, a, b, y: {"ts": t, "metrics": [{"name": "P", "value": y}, {"name": "T/1", "value": a}], "flow": b}
        ),
        ROWS,
        decode={"paths": {"temp": "metrics[name=T/1].value", "power": "metrics[name=P].value"}},
    ),
    "a metric twice": Case(
        json_lines({"ts": ISO[0], "flow": 1, "power": 1, "m": [{"n": "T", "v": 1}, {"n": "T", "v": 2}]}),
        [],
        (),
        [(0, "unparsable", "2 elements have n=T")],
        decode={"paths": {"temp": "m[n=T].v"}},
    ),
    "a name with dots": Case(
        nested(lambda t, a, b, y: {"ts": t, "data.temp": a, "flow": b, "power": y, "data": {"temp": -1}}),
        ROWS,
        sections={"features": ["data.temp", "flow"]},
    ),
    "a dotted name inside": Case(
        nested(lambda t, a, b, y: {"ts": t, "d": {"a.temp": a}, "flow": b, "power": y}),
        ROWS,
        decode={"paths": {"temp": 'd["a.temp"]'}},
    ),
    "a nested field by its dotted name": Case(
        nested(lambda t, a, b, y: {"ts": t, "data": {"temp": a, "flow": b}, "power": y}),
        [],
        (),
        [(i, "missing_field", '{"data.temp": "data.temp", "data.flow": "data.flow"}') for i in range(2)],
        sections={"features": ["data.temp", "data.flow"]},
    ),
    "a path that ends early": Case(
        json_lines({"ts": ISO[0], "power": 1, "payload": {"after": None}}),
        [],
        (),
        [(0, "missing_field", "temp: payload.after has no temp")],
        sections={"features": OF_DEBEZIUM},
    ),
    "a path that ends early, with a stand-in": Case(
        json_lines({"ts": ISO[0], "power": 1, "flow": 2, "payload": {"after": None}}),
        [(20, 2, 1)],
        [T0],
        sections={"features": {"temp": {"path": "payload.after.temp", "missing": 20.0}, "flow": {}}},
    ),
    "texts for numbers": Case(STRINGS, ROWS, decode={"text_numbers": "accept"}),
    "texts for numbers, not told": Case(
        STRINGS,
        [],
        (),
        [
            (0, "wrong_type", "temp is the text '24.082', not a number; set decode.text_numbers: accept"),
            (1, "wrong_type", "text_numbers"),
        ],
    ),
    "texts with a decimal comma": Case(
        json_lines({"ts": ISO[0], "temp": "24,082", "flow": "4,114", "power": 15.855}),
        ONE,
        decode={"text_numbers": "accept", "number_format": "1234,56"},
    ),
    "booleans": Case(
        json_lines({"ts": ISO[0], "temp": True, "flow": False, "power": 1}),
        [(1, 0, 1)],
        [T0],
        decode={"booleans": "numbers"},
    ),
    "booleans, not told": Case(
        json_lines({"ts": ISO[0], "temp": True, "flow": 1, "power": 1}), [], (), [(0, "wrong_type", "decode.booleans")]
    ),
    "NaN and words": Case(
        json_lines(*({"ts": ISO[0], "temp": v, "flow": 1, "power": 2} for v in (NAN, "N/A", None, ""))),
        [(20, 1, 2)] * 4,
        [T0] * 4,
        sections={"features": TWENTY},
    ),
    "NaN and words through a path": Case(
        json_lines(*({"ts": ISO[0], "d": [v], "flow": 1, "power": 2} for v in (NAN, "N/A", None))),
        [(NAN, 1, 2)] * 3,
        [T0] * 3,
        decode={"paths": {"temp": "d[0]"}},
    ),
    "NaN without a stand-in": Case(
        json_lines({"ts": ISO[0], "temp": NAN, "flow": 1, "power": 2}),
        [],
        (),
        [(0, "not_finite", "temp is nan")],
        sections={"features": NO_NAN},
    ),
    "date and time of day": Case(
        json_lines({"d": "2024-01-15", "h": "12:00:00", "temp": 1, "flow": 2, "power": 3}),
        [(1, 2, 3)],
        [T0],
        decode={"time": "d", "time_of_day": "h"},
    ),
    "lines of an array": Case(
        "[\n" + '{"ts": 1705320000, "temp": 1, "flow": 2, "power": 3},\n',
        [],
        (),
        [(0, "wrong_type", "object"), (1, "unparsable", "jq -c")],
    ),
    "epoch as text": Case(
        json_lines({"ts": "1705320000000", "temp": 1, "flow": 2, "power": 3}),
        [(1, 2, 3)],
        [T0],
        decode={"time_unit": "ms"},
    ),
    "digits as text": Case(
        json_lines({"ts": "2024011512001", "temp": 1, "flow": 2, "power": 3}), [], (), [(0, "bad_time", "1980 to 2099")]
    ),
    "UTF-16": Case(json_lines({"ts": ISO[0], "temp": 24.082, "flow": 4.114, "power": 15.855}).encode("utf-16"), ONE),
    "capitals": Case(
        json_lines({"ts": ISO[0], "Temp": 1, "flow": 1, "power": 2}),
        [],
        (),
        [(0, "missing_field", "it is written 'Temp'")],
    ),
}
JSON_CASES = {name: Case(**{**vars(case), "name": "data.jsonl"}) for name, case in JSON_CASES.items()}
CASES = {
    f"{kind}: {name}": case
    for kind, cases in (("csv", CSV_CASES), ("time", TIME_CASES), ("json", JSON_CASES))
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_gives_its_right_values(name: str, tmp_path: Path) -> None:
    """All samples with their times and keys, and all rejects with the way out; nothing else."""
    case = CASES[name]
    settings = loaded(case, tmp_path)
    if case.error is not None:
        with pytest.raises(ConfigError, match=case.error):
            outcome(settings)
        return
    samples, rejects = outcome(settings)
    assert [(r.offset, r.reason) for r in rejects] == [(offset, reason) for offset, reason, _ in case.rejects], rejects
    for reject, (_, _, part) in zip(rejects, case.rejects, strict=True):
        assert part in reject.detail
    rows = np.concatenate([samples.x, samples.y], axis=1)
    np.testing.assert_array_equal(rows, np.array(case.rows, float).reshape(-1, 3))
    times = case.times if case.times is not None else [T0 + 60 * i for i in range(len(case.rows))]
    if case.decode.get("time", "ts") is not None:
        np.testing.assert_allclose(samples.times_s, times, atol=1e-3)
    if case.keys is not None:
        assert samples.keys.tolist() == case.keys


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "csv: words and the mean",
            ["2 records: 2 accepted, 0 rejected", "temp   feature  text (1), number (1)", "2024-01-15 12:01:00"],
        ),
        ("csv: decimal comma, not told", ["0 accepted, 2 rejected", "wrong_type  2      record 0: temp is '24,082'"]),
        ("csv: a secret", ["temp   feature  text (1), number (1)  2        0        (secret)  (secret)"]),
        ("json: an envelope", ["temp   feature  number  2        0        14.889 to 24.082"]),
        ("json: texts for numbers, not told", ["number as text", "text_numbers: accept"]),
        (
            "json: NaN and words",
            ["temp   feature  number (1), text (1), null (1), nothing (1)  0        4        20 to 20"],
        ),
    ],
)
def test_the_report_on_the_data_shows_fields_and_rejects(name: str, lines: list[str], tmp_path: Path) -> None:
    """As `learnd validate --data` prints it: what is found, what is missing, ranges, examples, reasons."""
    text = report(loaded(CASES[name], tmp_path)).text
    for line in lines:
        assert line in text, text


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60
