"""Follow every link inside of the built site, and see that no page needs a network."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}


class Page(HTMLParser):
    """What a page points at, what it loads, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what is of interest."""
        known = {name: value or "" for name, value in attrs}
        self.places.update(known[name] for name in ("id", "name") if name in known)
        if tag == "a" and "href" in known:
            self.links.add(known["href"])
        is_link_of_meaning = tag == "link" and known.get("rel") not in ("stylesheet", "icon", "preload")
        if not is_link_of_meaning:
            self.loads.update(known[name] for kind, name in LOADED if kind == tag and name in known)


def faults_of(folder: Path) -> list[str]:
    """Return what is wrong, one line each."""
    faults = []
    pages = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.html"))
        if "_static" not in path.parts
    }
    for path, page in pages.items():
        here = path.relative_to(folder)
        for link in sorted(page.loads):
            if urlsplit(link).scheme not in ("", "data"):
                faults.append(f"{here}: loads {link}")
        for link in sorted(page.links | page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                faults.append(f"{here}: {link}: no such file")
            elif target in pages and unquote(parts.fragment) not in pages[target].places | {""}:
                faults.append(f"{here}: {link}: no such place in the page")
    return faults


if __name__ == "__main__":
    found = faults_of(Path(sys.argv[1]).resolve())
    print(*found, f"{len(found)} faults in the links of {sys.argv[1]}", sep="\n")
    sys.exit(bool(found))
