"""Fields of an answer: the schema that a model writes under, and the strict reading of what it wrote."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bt_llm.plain_json import strict_json

__all__ = ["Choice", "Field", "Lines", "Text", "Whole", "object_schema", "read_object"]


class Field(Protocol):
    """One field of an answer."""

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of its value."""
        ...

    @property
    def blank(self) -> Any:
        """Value in an answer that cannot be read."""
        ...

    def read(self, value: Any) -> Any:
        """Return the value, typed; ValueError, which says what was expected, if it is not one."""
        ...


@dataclass(frozen=True)
class Choice:
    """A member of an enum whose last one, INVALID, no model may give."""

    kind: type[enum.StrEnum]

    @property
    def words(self) -> list[str]:
        """What can be said."""
        return [member.value for member in self.kind if member.name != "INVALID"]

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema."""
        return {"type": "string", "enum": self.words}

    @property
    def blank(self) -> Any:
        """INVALID."""
        return self.kind["INVALID"]

    def read(self, value: Any) -> Any:
        """Return the member."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(f"is none of {', '.join(self.words)}")
        return self.kind(value)


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    low: int
    high: int

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema: every number by itself, since llama-cpp-python's grammars have no bounds."""
        return {"enum": list(range(self.low, self.high + 1))}

    @property
    def blank(self) -> int:
        """The least."""
        return self.low

    def read(self, value: Any) -> int:
        """Return the number; neither 70.0 nor true is one."""
        if type(value) is not int or not self.low <= value <= self.high:
            raise ValueError(f"is not a whole number from {self.low} to {self.high}")
        return value


@dataclass(frozen=True)
class Text:
    """One line of text, up to `most` characters."""

    most: int

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema: a pattern, since llama-cpp-python's grammars let raw control characters through."""
        return {"type": "string", "pattern": rf'^[^"\\\x00-\x1F\x7F]{{0,{self.most}}}$'}

    @property
    def blank(self) -> str:
        """Nothing."""
        return ""

    def read(self, value: Any) -> str:
        """Return the text without control characters, which could steer a terminal."""
        if not isinstance(value, str) or len(value) > self.most:
            raise ValueError(f"is not text of at most {self.most} characters")
        return " ".join("".join(c if c.isprintable() else " " for c in value).split())


@dataclass(frozen=True)
class Lines:
    """One to `most` lines of text."""

    most: int
    line: Text

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema."""
        return {"type": "array", "items": self.line.schema, "minItems": 1, "maxItems": self.most}

    @property
    def blank(self) -> tuple[str, ...]:
        """None."""
        return ()

    def read(self, value: Any) -> tuple[str, ...]:
        """Return the lines."""
        if not isinstance(value, list) or not 1 <= len(value) <= self.most:
            raise ValueError(f"is not a list of 1 to {self.most} texts")
        return tuple(self.line.read(item) for item in value)


def object_schema(fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the JSON schema of an object of exactly these fields."""
    return {
        "type": "object",
        "properties": {name: field.schema for name, field in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }


def read_object(text: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the fields of a JSON answer; the text is untrusted.

    Raises
    ------
    ValueError
        If it is not an object of exactly these fields, each as it should be; the message says what is wrong.

    Examples
    --------
    >>> read_object('{"confidence": 70}', {"confidence": Whole(0, 100)})
    {'confidence': 70}
    >>> read_object('{"confidence": 700}', {"confidence": Whole(0, 100)})
    Traceback (most recent call last):
    ValueError: confidence is not a whole number from 0 to 100
    """
    try:
        answer = strict_json(text)
    except ValueError:
        raise ValueError("not JSON") from None
    if not isinstance(answer, dict) or set(answer) != set(fields):
        raise ValueError(f"not an object of {', '.join(fields)}")
    read = {}
    for name, field in fields.items():
        try:
            read[name] = field.read(answer[name])
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    return read
