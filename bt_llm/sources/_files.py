"""A Python file loaded as a module, with the modules beside it, as ``python file.py`` would import them.

``python file.py`` puts the file's folder first on `sys.path`, for the whole process. Several files that are
loaded into one process cannot all do that: their neighbours of the same name would be taken for each other.
So each file is a package of its own, under a name that no other has, and an import statement in the file or
in one of its neighbours looks there first, whether it is run while the file is loaded or later.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from bt_llm.files import read_bytes
from bt_llm.writing import apart_from_results

__all__ = ["FROM_FILE", "MAIN", "SourceFiles", "files_of", "imported_names", "load_file", "read_source"]

FROM_FILE = "bt_llm_strategy_"
"""How the packages are named that loaded files are; no other finder knows them."""

MAIN = "__main__"
"""What the file itself is called in its package."""

_SHARED = ("bt_llm", "backtrader")
"""Packages of which a process has one, also for a file that lies beside them."""


def read_source(path: Path) -> str:
    """Return the text of a Python file, decoded as Python does, line ends normalised."""
    return importlib.util.decode_source(read_bytes(path, 64))


@functools.lru_cache(maxsize=256)
def imported_names(text: str, package: str) -> frozenset[str]:
    r"""Return the dotted names that the import statements of a source may import, wherever they stand.

    Parameters
    ----------
    text : str
        The source; one that is not Python imports nothing.
    package : str
        Dotted name that its relative imports start from.

    Examples
    --------
    >>> sorted(imported_names("import a.b\nfrom c import d\ndef later():\n    from . import e\n", "p"))
    ['a.b', 'c', 'c.d', 'p', 'p.e']
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(part for part in (*up, node.module) if part)
            names.update((base, *(f"{base}.{alias.name}".strip(".") for alias in node.names)))
    return frozenset(names - {""})


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFiles:
    """A Python file and those of its neighbours that it imports, by content.

    Pickled, it is the texts: another process runs these, and looks at no file.

    Parameters
    ----------
    path : str
        The file, absolute.
    texts : mapping of str to str
        Texts of it and of its neighbours, by their paths from its folder.
    shared : frozenset of str
        Neighbours that the process had imported itself, by these names and from the same files. They are the
        script's own modules, and the file gets those.
    here : bool
        Whether other neighbours, such as an extension module, may be looked for in the folder.
    """

    path: str
    texts: Mapping[str, str]
    shared: frozenset[str] = frozenset()
    here: bool = True

    @classmethod
    def read(cls, path: Path) -> SourceFiles:
        """Return a file with the neighbours that it imports, and that those import.

        Raises
        ------
        OSError
            If a file cannot be read.
        SyntaxError, UnicodeDecodeError
            If its text cannot be decoded.
        """
        path = path.absolute()
        texts: dict[str, str] = {}
        waiting = [path.name]
        while waiting:
            relative = waiting.pop()
            if relative in texts:
                continue
            texts[relative] = read_source(path.parent / relative)
            for name in imported_names(texts[relative], _package(relative)):
                waiting += _beside(path.parent, name)
        tops = {_top(relative) for relative in texts}
        shared = frozenset(top for top in tops if _is_imported(path.parent, top))
        return cls(path=str(path), texts=texts, shared=shared)

    def __hash__(self) -> int:
        """Hash the package's name, which stands for the content."""
        return hash(self.package)

    def __reduce__(self) -> tuple[Callable[..., SourceFiles], tuple[Any, ...]]:
        """Pickle as what another process needs; classes of the file can be unpickled after it."""
        return _received, (self.path, dict(self.texts), self.shared)

    @property
    def text(self) -> str:
        """The file's own text."""
        return self.texts[Path(self.path).name]

    @property
    def package(self) -> str:
        """Name of the package that the file is in this process: of its place and content."""
        digest = hashlib.sha256(repr([self.path, *sorted(self.texts.items())]).encode()).hexdigest()
        return f"{FROM_FILE}{digest[:16]}"

    def has(self, top: str) -> bool:
        """Return whether a neighbour of that name is among the texts."""
        return top in {_top(relative) for relative in self.texts}

    def imports(self, top: str) -> bool:
        """Return whether ``import top`` in the file means a module of the package."""
        if top in self.shared:
            return not (self.here or self._can_be_shared(top))
        if self.has(top):
            return True
        folder = Path(self.path).parent
        return self.here and _is_neighbour(folder, top) and not _is_imported(folder, top)

    def _can_be_shared(self, top: str) -> bool:
        """Return whether this process would import the same text by that name."""
        with contextlib.suppress(ImportError, ValueError, OSError, SyntaxError):
            spec = importlib.util.find_spec(top)
            text = self.texts.get(f"{top}.py", self.texts.get(f"{top}/__init__.py"))
            return spec is not None and read_source(Path(str(spec.origin))) == text
        return False

    def find(self, fullname: str) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module of the package, or None."""
        _, *parts = fullname.split(".")
        if not parts:
            return _folder_spec(fullname, Path(self.path).parent)
        if parts == [MAIN]:
            return _spec(fullname, self, Path(self.path).name)
        inside = "/".join(parts)
        for relative in (f"{inside}/__init__.py", f"{inside}.py"):
            if relative in self.texts or (self.here and (Path(self.path).parent / relative).is_file()):
                return _spec(fullname, self, relative)
        return self._find_other(fullname, Path(self.path).parent.joinpath(*parts), f"{inside}/")

    def _find_other(self, fullname: str, path: Path, inside: str) -> importlib.machinery.ModuleSpec | None:
        """Find an extension module, or a folder without an ``__init__.py``."""
        if self.here:
            found = importlib.machinery.PathFinder.find_spec(fullname, [str(path.parent)])
            if found is not None and found.origin is not None:
                return found
        is_folder = any(relative.startswith(inside) for relative in self.texts)
        return _folder_spec(fullname, path) if is_folder or (self.here and path.is_dir()) else None


def _received(path: str, texts: dict[str, str], shared: frozenset[str]) -> SourceFiles:
    files = SourceFiles(path=path, texts=texts, shared=shared, here=False)
    _register(files)
    return files


def _top(relative: str) -> str:
    """Return the name that an import statement begins with, of a file by its path."""
    return PurePosixPath(relative).parts[0].removesuffix(".py")


def _package(relative: str) -> str:
    """Return the dotted name that relative imports in a file start from."""
    return ".".join(PurePosixPath(relative).parent.parts)


def _beside(folder: Path, name: str) -> Iterator[str]:
    """Yield the files in a folder that importing a dotted name would run."""
    parts = name.split(".")
    if not _is_neighbour(folder, parts[0]):
        return
    for end in range(1, len(parts) + 1):
        inside = "/".join(parts[:end])
        for relative in (f"{inside}/__init__.py", f"{inside}.py"):
            if (folder / relative).is_file():
                yield relative
                break


def _is_neighbour(folder: Path, top: str) -> bool:
    """Return whether ``import top`` of a file in a folder means a module in that folder."""
    if top in (*_SHARED, *sys.builtin_module_names) or importlib.machinery.FrozenImporter.find_spec(top):
        return False
    found = importlib.machinery.PathFinder.find_spec(top, [str(folder)])
    if found is None:
        return False
    if found.origin is None:  # a folder without an __init__.py comes after everything else
        with contextlib.suppress(ImportError, ValueError):
            return importlib.util.find_spec(top) is None
        return False
    return True


def _is_imported(folder: Path, top: str) -> bool:
    """Return whether the process has imported a module of a folder itself, by its own name."""
    loaded = getattr(sys.modules.get(top), "__file__", None)
    own = (folder / f"{top}.py", folder / top / "__init__.py")
    return loaded is not None and Path(loaded).resolve() in [path.resolve() for path in own]


class _Loader(importlib.abc.ExecutionLoader):
    """Runs a module from its text; there is no bytecode, which of a file just edited may be stale."""

    def __init__(self, files: SourceFiles, relative: str) -> None:
        self.files = files
        self.path = Path(files.path).parent / relative
        text = files.texts.get(relative)
        self.text = read_source(self.path) if text is None else text

    def get_source(self, fullname: str) -> str:
        return self.text

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def is_package(self, fullname: str) -> bool:
        return self.path.name == "__init__.py"

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _importing(self.files)}
        with apart_from_results():
            super().exec_module(module)


def _spec(fullname: str, files: SourceFiles, relative: str) -> importlib.machinery.ModuleSpec | None:
    return importlib.util.spec_from_loader(fullname, _Loader(files, relative))


def _folder_spec(fullname: str, path: Path) -> importlib.machinery.ModuleSpec:
    spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
    spec.submodule_search_locations = [str(path)]
    return spec


def _importing(files: SourceFiles) -> Callable[..., Any]:
    """Return the ``__import__`` of a file's modules, which looks beside the file first."""
    package, imports = files.package, functools.lru_cache(files.imports)

    def importing(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or not imports(top):
            return builtins.__import__(name, globals, locals, fromlist, level)
        module = importlib.import_module(f"{package}.{name}")
        if not fromlist:
            return sys.modules[f"{package}.{top}"]
        return builtins.__import__(module.__name__, globals, locals, fromlist, 0)

    return importing


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of the files that this process has loaded or was sent."""

    def __init__(self) -> None:
        self.packages: dict[str, SourceFiles] = {}

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        files = self.packages.get(fullname.partition(".")[0])
        return None if files is None else files.find(fullname)


_finder = _Finder()


def _register(files: SourceFiles) -> None:
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    known = _finder.packages.get(files.package)
    if known is None or files.here:
        _finder.packages[files.package] = files


def load_file(files: SourceFiles, *, anew: bool) -> ModuleType:
    """Run a file as a module, and return it.

    Parameters
    ----------
    files : SourceFiles
        The file.
    anew : bool
        Whether to run it again where this process has run the same text of it already.

    Raises
    ------
    Exception
        Whatever the file raises.
    """
    _register(files)
    if anew:
        for name in [*sys.modules]:
            if name.partition(".")[0] == files.package:
                del sys.modules[name]
    return importlib.import_module(f"{files.package}.{MAIN}")


def files_of(code: Any) -> SourceFiles | None:
    """Return the file that a class or function was loaded from, by `load_file`; None for any other."""
    return _finder.packages.get(str(getattr(code, "__module__", "")).partition(".")[0])
