"""``pgfleet schema``: the file's JSON Schema, for editors that complete and check while one types."""

from __future__ import annotations

import typer

from pgfleet.cli import view


def schema(context: typer.Context) -> None:
    """Print the JSON Schema of the file, for editors.

    In the file: # yaml-language-server: $schema=fleet.schema.json"""
    from pgfleet.spec.schema import json_schema

    view.document(json_schema())
