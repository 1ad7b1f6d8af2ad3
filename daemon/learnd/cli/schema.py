"""``learnd schema``: the JSON Schema of the configuration or of a manifest, or the configuration reference."""

import argparse
import json

from learnd.config.loader import json_schema


def execute(options: argparse.Namespace) -> int:
    """Print the schema that *options* name; return the exit code."""
    if options.manifest:
        from learnd.export.manifest_schema import SCHEMA_FILE

        print(SCHEMA_FILE.read_text(encoding="utf-8"), end="")
    elif options.markdown:
        from learnd.config.reference_page import markdown

        print(markdown(json_schema()), end="")
    else:
        print(json.dumps(json_schema(), indent=2))
    return 0
