"""Where an answer begins: after a thought that is over at once, and all that stands before answers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping

from bt_llm.exceptions import PromptError

__all__ = ["open_thought", "opened_answer"]

_OPENER = re.compile(
    r"(?P<tag><\|?(?!END|/)[\w:]*(?:think|reason|thought)[\w:]*\|?>|\[THINK\]|Here are my reasoning steps:)"
    r"(?P<space>\s*)\Z",
    re.IGNORECASE,
)
_THOUGHT = re.compile(
    r"(<[\w:]*think[\w:]*>\s*)?</[\w:]*think[\w:]*>\s*|<\|START_THINKING\|>.*?<\|END_THINKING\|>"
)
_PROBE = ("\u27e6first\u27e7", "\u27e6answer\u27e7", "\u27e6second\u27e7")

Turn = Mapping[str, str]


def open_thought(text: str) -> str:
    r"""Return the mark that opens a thought at the end of a text, or nothing.

    Examples
    --------
    >>> open_thought("<|Assistant|><think>\n"), open_thought("<think></think>")
    ('<think>', '')
    """
    found = _OPENER.search(text)
    return found["tag"] if found else ""


def opened_answer(text: str, template: str, render: Callable[[list[Turn]], str]) -> str:
    r"""Return a conversation with all that comes before an answer's first word.

    A thought that the template opens is closed. Then comes what the same template writes between the
    header of an earlier answer and its first word, such as harmony's ``<|channel|>final<|message|>``.

    Parameters
    ----------
    text : str
        The conversation, open for an answer.
    template : str
        Jinja source: says how its family writes an empty thought.
    render : callable
        Renders other turns in the same way.

    Examples
    --------
    >>> opened_answer("Hi<|Assistant|><think>\n", "", lambda turns: "")
    'Hi<|Assistant|><think>\n\n</think>\n\n'
    """
    header, before = _headers(render)
    closed = _closed(text, template)
    if not header or not text.endswith(header):
        return closed
    shared = _shared(header, before)
    if before[:shared] == header:
        return text + before[shared:]
    own = closed[len(text) - len(header) + shared :]  # what the template adds only before an answer to come
    return closed + _THOUGHT.sub("", before[shared:], count=1) if _THOUGHT.fullmatch(own) else closed


def _headers(render: Callable[[list[Turn]], str]) -> tuple[str, str]:
    """Return what stands before an answer that is to come, and before one that was given."""
    roles = ("user", "assistant", "user")
    try:
        text = render([{"role": role, "content": said} for role, said in zip(roles, _PROBE, strict=True)])
    except PromptError:
        return "", ""
    if not all(text.count(said) == 1 for said in _PROBE):
        return "", ""
    first, answer, second = (text.index(said) for said in _PROBE)
    return text[second + len(_PROBE[2]) :], text[first + len(_PROBE[0]) : answer]


def _shared(one: str, other: str) -> int:
    """Return how long two texts are the same, no mark being cut."""
    pairs = zip(one, other, strict=False)
    size = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    opened = one.rfind("<", 0, size)
    return opened if opened > one.rfind(">", 0, size) else size


def _closed(text: str, template: str) -> str:
    """Close a thought that is open at the end, in the words of its template where it has some."""
    found = _OPENER.search(text)
    closer = _closer(found["tag"]) if found else ""
    if found is None or not closer:
        return text
    tag, mark = re.escape(found["tag"]), re.escape(closer)
    if empty := re.search(rf"{tag}(?:\\n)*{mark}(?:\\n)*", template):
        return text[: found.start()] + _unescaped(empty[0])
    if end := re.search(rf"(?:\\n)+{mark}(?:\\n)*", template):
        return text + _unescaped(end[0])
    return text + (f"\n{closer}\n\n" if found["space"] else closer)


def _closer(tag: str) -> str:
    """Return the mark that closes a thought; nothing if it is not known."""
    if tag.startswith("Here"):
        return "[BEGIN FINAL RESPONSE]"
    if tag.startswith("["):
        return f"[/{tag[1:]}"
    if "START_" in tag:
        return tag.replace("START_", "END_")
    return "" if "|" in tag else f"</{tag[1:]}"


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n")
