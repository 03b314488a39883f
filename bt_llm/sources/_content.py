"""What code is called, and what it is by content: its source, and that of what it imports."""

from __future__ import annotations

import functools
import hashlib
import importlib.machinery
import inspect
import sys
import sysconfig
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

from bt_llm.exceptions import StrategyError
from bt_llm.files import read_bytes
from bt_llm.sources._files import FROM_FILE, MAIN, files_of, imported_names, read_source

__all__ = ["code_name", "is_ours", "source_sha256"]

_OURS = ("bt_llm", "backtrader", "builtins")
_STANDARD = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
_INSTALLED = {"site-packages", "dist-packages"}


def is_ours(code: Any) -> bool:
    """Return whether a class or function is of bt_llm, Backtrader or Python, known by its name alone."""
    return str(code.__module__).partition(".")[0] in _OURS


def code_name(code: Any) -> str:
    """Return the name of a class or function, which does not depend on where its file is.

    Of bt_llm it is the room's public name, so that it stays when modules inside the room change. What is in
    a file that was loaded by its path is in ``strategy``, and in its neighbours in ``strategy.NAME``.

    Examples
    --------
    >>> from bt_llm.gates import Gate
    >>> code_name(Gate), code_name(len)
    ('bt_llm.gates:Gate', 'builtins:len')
    """
    module, name = str(code.__module__), str(code.__qualname__)
    top, _, inside = module.partition(".")
    if top == "bt_llm":
        room = ".".join(module.split(".")[:2])
        is_public = getattr(sys.modules.get(room), name, None) is code
        return f"{room if is_public else module}:{name}"
    if top.startswith(FROM_FILE):
        return f"strategy:{name}" if inside == MAIN else f"strategy.{inside}:{name}"
    return f"{module}:{name}"


def source_sha256(code: Any) -> str:
    """Return the SHA-256 of everything that the source of a class or function says.

    Hashed are the file that defines it and, by content, every module that this imports and those import in
    turn, wherever in them; but those of Python itself, of packages that are installed, of bt_llm and of
    Backtrader. Where the file is does not matter. What is imported by other means than an import statement
    is not seen.

    Raises
    ------
    StrategyError
        If the source cannot be read, or there is none.
    """
    return _hashed(code, str(code.__module__))


@functools.lru_cache(maxsize=128)  # a class that was loaded does not change when its file does
def _hashed(code: Hashable, module: str) -> str:
    try:
        texts = _texts(code)
    except (OSError, TypeError, SyntaxError, UnicodeDecodeError) as error:
        name = getattr(code, "__name__", code)
        raise StrategyError(f"source of strategy {name} cannot be read ({error})") from error
    return hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()


def _texts(code: Any) -> dict[str, str]:
    """Return the sources by name; the file that defines the code has none."""
    files = files_of(code)
    if files is None:
        package = str(getattr(sys.modules.get(code.__module__), "__package__", None) or "")
        own = read_source(Path(inspect.getfile(code)))
        return {"": own, **_imported({(own, package)}, lambda top: False)}
    main = Path(files.path).name
    near = {"" if relative == main else relative: text for relative, text in files.texts.items()}
    # Relative imports of neighbours stay among them.
    return {**near, **_imported({(text, "") for text in near.values()}, files.has)}


def _imported(sources: set[tuple[str, str]], is_known: Callable[[str], bool]) -> dict[str, str]:
    """Return the sources of the modules that sources import, but for those known already."""
    found: dict[str, str] = {}
    waiting = [(name, is_known) for text, package in sources for name in imported_names(text, package)]
    while waiting:
        name, skip = waiting.pop()
        if skip(name.partition(".")[0]):
            continue
        for module, path, package in _modules(name):
            if module not in found:
                found[module] = _text(path)
                names = imported_names(found[module], package) if path.suffix == ".py" else ()
                waiting += [(other, _never) for other in names]
    return found


def _never(_: str) -> bool:
    return False


def _text(path: Path) -> str:
    return read_source(path) if path.suffix == ".py" else hashlib.sha256(read_bytes(path, 1024)).hexdigest()


def _modules(name: str) -> Iterator[tuple[str, Path, str]]:
    """Yield the modules that importing a dotted name runs: names, files, and where relative imports start."""
    parts, search = name.split("."), None
    if parts[0] in (*_OURS, MAIN):
        return
    for end in range(1, len(parts) + 1):
        module = ".".join(parts[:end])
        spec = _find(module, search)
        if spec is None or (spec.origin is None and spec.submodule_search_locations is None):
            return
        search = spec.submodule_search_locations
        if spec.origin is not None:
            path = Path(spec.origin)
            if not path.is_file() or _is_installed(path):
                return
            yield module, path, module if search is not None else module.rpartition(".")[0]
        if search is None:
            return


def _find(module: str, search: Any) -> importlib.machinery.ModuleSpec | None:
    """Find a module, as it was imported or would be; nothing is imported."""
    found = getattr(sys.modules.get(module), "__spec__", None)
    if found is not None:
        return found  # type: ignore[no-any-return]
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(module, search, None)
        except (ImportError, AttributeError, ValueError):
            continue
        if spec is not None:
            return spec
    return None


def _is_installed(path: Path) -> bool:
    found = path.resolve()
    return bool(_INSTALLED & set(found.parts)) or any(folder in found.parents for folder in _STANDARD)
