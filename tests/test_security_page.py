"""What SECURITY.md says is held by tests is: each of those that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

TABLES = ("Keys and addresses", "Manifests", "Caches and ledgers")


def test_every_line_names_tests_that_exist(repository: Path) -> None:
    text = (repository / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_/]+\.py)::([a-z_0-9]+)`", text)
    assert len(named) > 25
    for file, test in named:
        source = (repository / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *def {test}\(", source, re.MULTILINE), f"{file}::{test}"


def test_no_line_of_the_tables_is_without_one(repository: Path) -> None:
    text = (repository / "SECURITY.md").read_text(encoding="utf-8")
    for title in TABLES:
        _, _, section = text.partition(f"## {title}\n")
        rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]
        assert len(rows) >= 5
        assert all(".py" in row.rpartition(" | ")[2] for row in rows)
