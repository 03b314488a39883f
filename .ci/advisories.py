"""Compare what is installed for bt-llm, and its lower bounds, with the holes listed in this folder."""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).resolve().parent


def resolved(name: str, extras: frozenset[str]) -> dict[str, str]:
    """Return the versions of a distribution and of all that it needs, as far as they are installed."""
    found: dict[str, str] = {}
    waiting, seen = [(name, extras)], set()
    while waiting:
        one, asked = waiting.pop()
        if (one, asked) in seen:
            continue
        seen.add((one, asked))
        try:
            distribution = importlib.metadata.distribution(one)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed
        found[canonicalize_name(one)] = distribution.version
        for text in distribution.requires or ():
            needed = Requirement(text)
            environments = [{"extra": extra} for extra in (*asked, "")]
            if needed.marker is None or any(map(needed.marker.evaluate, environments)):
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return found


def installed_holes(versions: dict[str, str], advisories: list[dict[str, Any]]) -> list[str]:
    """Return what is installed in a version that has a hole."""
    return [
        f"{one['package']} {versions[one['package']]}: {one['id']}, {one['what']}; fixed in {one['fixed']}"
        for one in advisories
        if "fixed" in one
        and one["package"] in versions
        and Version(versions[one["package"]]) < Version(one["fixed"])
    ]


def allowed_holes(requirements: list[str], advisories: list[dict[str, Any]]) -> list[str]:
    """Return the requirements whose lower bound lets a version with a hole in."""
    let_in = []
    for needed in map(Requirement, requirements):
        least = max(
            (Version(s.version) for s in needed.specifier if s.operator in (">=", "==")), default=None
        )
        for one in advisories:
            fixed = Version(one["fixed"]) if "fixed" in one else None
            named = canonicalize_name(needed.name) == one["package"]
            if named and fixed is not None and (least is None or least < fixed):
                let_in.append(f"{needed}: expected >={fixed}, {one['id']}")
    return let_in


def main() -> int:
    """Print what was found; 1 if it is anything."""
    listed = tomllib.loads((HERE / "advisories.toml").read_text(encoding="utf-8"))
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    versions = resolved(project["name"], frozenset(extras))
    needed = [*project["dependencies"], *(text for group in extras.values() for text in group)]
    problems = installed_holes(versions, listed["advisory"]) + allowed_holes(needed, listed["advisory"])
    print(f"{len(versions)} packages, {len(listed['advisory'])} advisories as of {listed['date']}")
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
