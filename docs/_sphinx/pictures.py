"""Take the README's pictures: the page of a run, and the site, as a headless Chromium shows them.

``python docs/_sphinx/pictures.py build/docs``, from the root of the repository, once the site is built.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.browser import chromium

IMAGES = Path("docs/images")
HEIGHT = 900


def take(page: Path, picture: Path, *, width: int = 1280, dark: bool = False, height: int = HEIGHT) -> None:
    """Write what a page looks like when it is opened."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as browser:
        browser.open(page.resolve(), width=width, dark=dark)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = browser("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
    picture.write_bytes(base64.b64decode(shot["data"]))


def main(site: Path) -> None:
    """Run the demo's strategy for its page, and take both."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        words = "run -s strategies/sma_cross.py:GatedSmaCross -d data/eurusd_hourly.csv -m smollm2"
        costs = ["--commission", "0.00002", "--report", str(page)]
        subprocess.run(
            [sys.executable, "-m", "bt_llm", *words.split(), *costs], check=True, capture_output=True
        )
        take(page, IMAGES / "report.png", width=1000)
    take(site / "index.html", IMAGES / "docs.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
