"""JSON as bt_llm writes and reads it: one text for a value, no NaN and no infinity, nothing hostile."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NoReturn

__all__ = ["canonical_json", "plain", "read_back", "strict_json"]


def canonical_json(value: Any) -> str:
    r"""Return the one JSON text of a value: sorted keys, no spaces, ASCII, no NaN.

    Raises
    ------
    ValueError, TypeError
        If it has none.

    Examples
    --------
    >>> canonical_json({"b": [1.0, None], "a": "ä"})
    '{"a":"\\u00e4","b":[1.0,null]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def strict_json(text: str) -> Any:
    """Read JSON that may be hostile: no NaN, no infinity, no name given twice, no nesting that is too deep.

    Raises
    ------
    ValueError
        If the text is not such JSON.

    Examples
    --------
    >>> strict_json('{"a": NaN}')
    Traceback (most recent call last):
    ValueError: NaN is not JSON
    >>> strict_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: 'a' stands in an object twice
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (math.inf, -math.inf):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # what others read may be the first of the two
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{twice[:40]!r} stands in an object twice")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_object)


def read_back(value: Any) -> Any:
    """Return a deep copy of JSON values, as reading them back gives it.

    Raises
    ------
    ValueError
        If something in it has no JSON form.

    Examples
    --------
    >>> read_back({"sizes": (1, 2)})
    {'sizes': [1, 2]}
    """
    try:
        return strict_json(canonical_json(value))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def plain(value: Any) -> Any:
    """Return a value of ours for JSON: NaN and infinities become None, dataclasses mappings, times ISO 8601.

    What has no other form, such as an enum or a class, becomes its text.

    Examples
    --------
    >>> import datetime
    >>> plain({"a": math.nan, "b": (1, 2.5), 1: datetime.date(2024, 1, 2)})
    {'a': None, 'b': [1, 2.5], '1': '2024-01-02'}
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "columns"):  # a DataFrame: its rows
        return plain(value.to_dict("records"))
    if hasattr(value, "tolist"):  # arrays, and numpy's numbers
        return plain(value.tolist())
    if hasattr(value, "isoformat"):
        return value.isoformat() if value == value else None  # pandas' NaT, like NaN, equals nothing
    return str(value)
