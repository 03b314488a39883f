"""What a pack of a stranger says is shown by the commands, not obeyed by the terminal."""

from __future__ import annotations

from pathlib import Path

from bt_llm.cache import Pack, Record
from bt_llm.cache._pack_files import write_pack
from bt_llm.verdicts import Verdict
from tests.cache_cases import MODEL, question
from tests.cli_cases import Cli
from tests.test_plain_text import EVIL, OBEYED, assert_shown


def evil_pack(folder: Path) -> Path:
    asked = question(1, prompt=("p\n", f"Trend: up {EVIL[:-1]}\n"))
    answer = Verdict(bullish=0.5, neutral=0.2, bearish=0.3, reason=f"because {EVIL[:-1]}")
    names = {"names": [f"llama{EVIL[:-1]}"], "sha256": MODEL, "chat_template": "", "bos_token": ""}
    model = {**names, "eos_token": "", "details": {}}
    pack = Pack(records=(Record(asked, answer, {"model": f"m{EVIL[:-1]}"}),), models=(model,))
    write_pack(pack, folder / "evil.jsonl")
    return folder / "evil.jsonl"


def test_what_a_pack_says_is_shown(cli: Cli, tmp_path: Path) -> None:
    pack = evil_pack(tmp_path)
    key = question(1, prompt=("p\n", f"Trend: up {EVIL[:-1]}\n")).key
    for form in ("table", "json"):
        for command in (["import", str(pack)], ["list"], ["stats"], ["show", key], ["verify"]):
            shown = cli("cache", *command, *(["--format", form] if command[0] != "verify" else []))
            assert not OBEYED & set(shown.out + shown.err), command
    assert_shown(cli("cache", "show", key).out)
