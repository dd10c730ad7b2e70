"""Numbers that papers printed, for a look beside ours; none of them was measured here."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from prunus.compare.contract import PublishedRow, PublishedTable
from prunus.errors import PrunusError
from prunus.io.jsons import parse


@cache
def _texts() -> dict[str, bytes]:
    folder = files("prunus.compare.published")
    names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".json"))
    return {name: folder.joinpath(name).read_bytes() for name in names}


def published_tables() -> list[PublishedTable]:
    """All tables, in the order of their files' names.

    Raises:
        PrunusError: a file that does not say what it should; names it.
    """
    tables = [check_table(parse(text, name), name) for name, text in _texts().items()]
    ids = [table["id"] for table in tables]
    if len(set(ids)) != len(ids):
        raise PrunusError(f"two published tables have one id: {', '.join(sorted(ids))}")
    return tables


def check_table(found: object, place: str) -> PublishedTable:
    """``found`` as a table: all parts are there, every value is a number or null and stands under a
    known benchmark, and every line says where it is from.

    Raises:
        PrunusError: it is not; ``place`` starts the message.
    """
    if not isinstance(found, dict) or set(found) != PublishedTable.__required_keys__:
        raise PrunusError(f"{place}: a table has {', '.join(PublishedTable.__annotations__)}")
    for key in ("id", "title", "source", "protocol", "model"):
        if not isinstance(found[key], str) or not found[key]:
            raise PrunusError(f"{place}: {key} must be a text")
    benchmarks = found["benchmarks"]
    if not _texts_only(benchmarks) or not _texts_only(found["flags"]):
        raise PrunusError(f"{place}: benchmarks and flags are lists of texts")
    _check_values(found["dense"], benchmarks, f"{place}, dense")
    keys = set()
    for number, row in enumerate(found["rows"], start=1):
        where = f"{place}, row {number}"
        if not isinstance(row, dict) or set(row) != PublishedRow.__required_keys__:
            raise PrunusError(f"{where}: a row has {', '.join(PublishedRow.__annotations__)}")
        if isinstance(row["budget"], bool) or not isinstance(row["budget"], (int, float)):
            raise PrunusError(f"{where}: the budget is a number")
        if not (row["method"] and row["source"]) or not _texts_only(row["flags"]):
            raise PrunusError(f"{where}: method, source and flags are texts")
        if set(row["values"]) != set(benchmarks):
            raise PrunusError(f"{where}: one value or null for each of {', '.join(benchmarks)}")
        _check_values(row["values"], benchmarks, where)
        line = (row["budget"], row["method"], row["source"])
        if line in keys:
            raise PrunusError(f"{where}: {row['method']} at {row['budget']} stands there twice")
        keys.add(line)
    table: PublishedTable = found  # type: ignore[assignment]
    return table


def _texts_only(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one for one in value)


def _check_values(values: object, benchmarks: list[str], where: str) -> None:
    if not isinstance(values, dict) or not set(values) <= set(benchmarks):
        raise PrunusError(f"{where}: values are by benchmark, of {', '.join(benchmarks)}")
    for name, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not number:
            raise PrunusError(f"{where}: {name} must be a number or null")
