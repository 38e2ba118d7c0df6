"""JSON Schemas of the file formats of clm-data, generated from the record types.

After changing a record type, run ``python -m clm_data.json_schema`` to update the shipped files.
Increase :data:`VERSION` if values that used to be valid no longer are.
"""

from __future__ import annotations

import ast
import inspect
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from clm_data import records
from clm_data.errors import InputFileError, UnknownNameError
from clm_data.records import Decision, Entry, Frozen, Record

VERSION = 1
KINDS: dict[str, type[Frozen]] = {"entry": Entry, "record": Record, "decision": Decision}
FOLDER = Path(__file__).with_name("schemas")

_LONGEST_MESSAGE = 160


def load(kind: str) -> dict[str, Any]:
    """Load a shipped schema.

    Args:
        kind: ``entry``, ``record`` or ``decision``.

    Raises:
        UnknownNameError: There is no such schema.
    """
    if kind not in KINDS:
        raise UnknownNameError("schema", kind, KINDS)
    schema: dict[str, Any] = json.loads(schema_file(kind).read_text(encoding="utf-8"))
    return schema


def check(kind: str, value: Any, where: str) -> None:
    """Check a JSON value against a shipped schema.

    Args:
        kind: ``entry``, ``record`` or ``decision``.
        value: A parsed JSON value.
        where: Name of the value for the error message, such as ``records.jsonl, line 3``.

    Raises:
        InputFileError: The value does not match the schema.
    """
    from jsonschema.exceptions import best_match

    error = best_match(_validator(kind).iter_errors(value))
    if error is not None:
        path = ".".join(str(part) for part in error.absolute_path) or "the whole value"
        message = " ".join(error.message.split())
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[: _LONGEST_MESSAGE // 2]} … {message[-_LONGEST_MESSAGE // 2 :]}"
        raise InputFileError(
            f"{where}: {path}: {message} (clm-data schema {kind} shows the format)"
        )


def generate(kind: str) -> dict[str, Any]:
    """Generate a schema from its record type, with the docstrings of the fields as descriptions."""
    schema = KINDS[kind].model_json_schema()
    docstrings = _field_docstrings()
    for name, definition in {KINDS[kind].__name__: schema, **schema.get("$defs", {})}.items():
        for field, properties in definition.get("properties", {}).items():
            if field in docstrings.get(name, {}):
                properties["description"] = docstrings[name][field]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:clm-data:schema:{kind}:{VERSION}",
        **schema,
    }


def text_of(kind: str) -> str:
    """The text that the shipped schema file must have."""
    return json.dumps(generate(kind), ensure_ascii=False, indent=2) + "\n"


def schema_file(kind: str) -> Path:
    """Path of a shipped schema file."""
    return FOLDER / f"{kind}.v{VERSION}.json"


@lru_cache(maxsize=len(KINDS))
def _validator(kind: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load(kind))


def _field_docstrings() -> dict[str, dict[str, str]]:
    """The string below each field in the source of the records, by class and field name."""
    docstrings: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(records)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        found = docstrings.setdefault(node.name, {})
        for line, below in zip(node.body, node.body[1:], strict=False):
            if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[line.target.id] = inspect.cleandoc(str(below.value.value))
    return docstrings


def _write() -> None:
    FOLDER.mkdir(exist_ok=True)
    for kind in KINDS:
        schema_file(kind).write_text(text_of(kind), encoding="utf-8")


if __name__ == "__main__":
    _write()
