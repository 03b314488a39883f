"""Write chat_templates.json.xz: chat templates of real models, and what llama.cpp's server makes of them.

``python -m tests.prompts.make_chat_templates SERVER TEMPLATES`` with a compiled ``llama-server`` and the
folder ``vendor/llama.cpp/models/templates``; the source distribution of llama-cpp-python has both.
The server's ``/apply-template`` renders one conversation, thinking switched off; dates are those of the day.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import lzma
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.tiny_gguf import write_tiny_model

RECORDED = Path(__file__).with_name("chat_templates.json.xz")
PORT = 18917
CONVERSATION = [
    {"role": "system", "content": "Judge the market."},
    {"role": "user", "content": "Trend: up"},
    {"role": "assistant", "content": "Verdict: Bullish"},
    {"role": "user", "content": "Trend: down"},
    {"role": "assistant", "content": "Verdict: Bearish"},
    {"role": "user", "content": "Trend: flat"},
]


def main(server: str, templates: str) -> None:
    """Ask the server about every template."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_model(Path(folder) / "tiny.gguf")
        for path in sorted(Path(templates).glob("*.jinja")):
            with _serving(server, model, path) as ask:
                prompt, error = ask()
            found[path.stem] = {"source": path.read_text(encoding="utf-8"), "prompt": prompt, "error": error}
            sys.stderr.write(f"{path.stem}: {error or repr(prompt[-60:])}\n")
    recorded = {
        "source": "ggml-org/llama.cpp, models/templates, MIT",
        "day": datetime.date.today().isoformat(),
        "conversation": CONVERSATION,
        "templates": found,
    }
    text = json.dumps(recorded, ensure_ascii=False, indent=1, sort_keys=True)
    RECORDED.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


@contextlib.contextmanager
def _serving(server: str, model: Path, template: Path) -> Iterator[Any]:
    command = [
        server,
        "-m",
        str(model),
        "--port",
        str(PORT),
        "--jinja",
        "--chat-template-file",
        str(template),
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, "-c", "256", "-t", "1"], stdout=log, stderr=log)
        try:
            yield lambda: _ask(process, log)
        finally:
            process.terminate()
            process.wait()


def _ask(process: subprocess.Popen[bytes], log: Any) -> tuple[str, str]:
    body = {
        "messages": CONVERSATION,
        "chat_template_kwargs": {"enable_thinking": False, "preserve_reasoning": False},
    }
    for _ in range(300):
        if process.poll() is not None:
            log.seek(0)
            return "", log.read().decode("utf-8", "replace").strip().splitlines()[-1]
        try:
            return str(_post("/apply-template", body)["prompt"]), ""
        except urllib.error.HTTPError as error:
            if error.code != 503:  # it is loading
                return "", json.loads(error.read())["error"]["message"]
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.1)
    return "", "no answer"


def _post(path: str, body: Any) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


if __name__ == "__main__":
    main(*sys.argv[1:])
