"""Files as strangers may send them: sound ones with bits, bytes, lines and values changed.

A reader must give what the sound file gives, or refuse in one line of its own errors; it must not crash,
hang, raise anything else, or change the file.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import re
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from bt_llm.cache import VerdictCache
from bt_llm.cache._pack_files import read_pack
from bt_llm.data import shipped
from bt_llm.exceptions import BtLlmError
from bt_llm.manifest import read_manifest
from bt_llm.models import read_facts, render_chat
from bt_llm.prompts import PromptTemplate
from bt_llm.research import TrialLedger, TrialOutcome, TrialRecord, load_study
from bt_llm.verdicts import StateSpace
from tests.cache_cases import identity, record

__all__ = ["KINDS", "Outcome", "attack", "tally", "trial"]

LIMIT_S = 60
"""Seconds that a reader may take for a file of some kilobytes, on a machine that stalls."""

INTERESTING = (b"\0", b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\x1b[2J", b"1e400", b"NaN", b"[" * 60, b"\r\n")
NUMBERS = (b"0", b"-1", b"1e309", b"99999999999999999999", b"true", b'"x"')

CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m.content | trim }}{{ ';' if not loop.last }}{% endfor %}"

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e308,
    10**30,
    "",
    "x" * 10_000,
    "\x1b[2J",
    "openai:http://127.0.0.1:9/v1",
    "../../etc/passwd",
    "/dev/zero",
    [],
    {},
    [[[]]],
    {"a": None},
    "0" * 64,
    0.5,
    "NaN",
)

STUDY = """\
strategy = "cross.py:Cross"
data = "bars.csv"

[gate.advisor]
model = "scripted:random"

[grid]
fast = [2, 4]
gate.require = ["agree", "not_against"]

[walk_forward]
train_size = "6MS"
test_size = "1MS"

[account]
cash = 10000.0
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a changed file: ``refused``, ``read``, or what is wrong, and the line or the trace."""

    kind: str
    what: str
    detail: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether it is neither refused nor read."""
        return self.what not in ("refused", "read")


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file: how a sound one is made, and what reads one and says what is wrong with the result."""

    make: Callable[[Path], Path]
    read: Callable[[Path, Path], str]
    """From a changed file and the sound one to what is wrong with what was read; empty if nothing is."""


def _header(folder: Path) -> Path:
    from gguf import GGUFWriter

    file, words = folder / "model.gguf", [f"word{number}" for number in range(500)]
    writer = GGUFWriter(str(file), "llama")
    for add, value in (
        (writer.add_name, "tiny"),
        (writer.add_context_length, 256),
        (writer.add_embedding_length, 32),
        (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 64),
        (writer.add_head_count, 2),
        (writer.add_head_count_kv, 2),
        (writer.add_tokenizer_model, "gpt2"),
        (writer.add_token_list, words),
        (writer.add_token_merges, [f"{one} {one}" for one in words]),
        (writer.add_bos_token_id, 1),
        (writer.add_eos_token_id, 2),
        (writer.add_chat_template, CHAT),
    ):
        add(value)
    writer.add_tensor("token_embd.weight", np.zeros((500, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _read_header(file: Path, sound: Path) -> str:
    facts = read_facts(file)
    if facts.chat_template:
        render_chat(facts.chat_template, [{"role": "user", "content": "q"}], bos_token="", eos_token="")
    return ""  # the header of another model: its own SHA-256 is in the key of every answer


def _pack(folder: Path) -> Path:
    sound = shipped("demo_pack.jsonl").read_bytes()
    (folder / "pack.jsonl").write_bytes(sound)
    return folder / "pack.jsonl"


def _read_pack(file: Path, sound: Path) -> str:
    pack = read_pack(file)
    same = pack.text.encode() == file.read_bytes()
    return "" if same else "a pack was accepted that is not what its contents are written as"


def _manifest(folder: Path) -> Path:
    (folder / "run.json").write_bytes(shipped("demo_run.json").read_bytes())
    return folder / "run.json"


def _read_manifest(file: Path, sound: Path) -> str:
    found = read_manifest(file)
    changed = file.read_bytes() != sound.read_bytes()
    return "" if changed or found.text == read_manifest(sound).text else "one file is read as two manifests"


def _study(folder: Path) -> Path:
    (folder / "cross.py").write_text("class Cross:\n    pass\n", encoding="utf-8")
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    return folder / "study.toml"


def _read_study(file: Path, sound: Path) -> str:
    load_study(file)
    return ""


def _template(folder: Path) -> Path:
    text = PromptTemplate.load("market").text
    (folder / "market.toml").write_text(text, encoding="utf-8")
    return folder / "market.toml"


def _read_template(file: Path, sound: Path) -> str:
    PromptTemplate.load(file).check_states(StateSpace())
    return ""


def trial(number: int) -> TrialRecord:
    equity = np.array([100.0, 101.5 + number, 99.25])
    outcome = TrialOutcome(equity=equity, trades=2, wins=1, held=2, traded=190.5)
    return TrialRecord(
        key=f"{number:064x}",
        configuration=f"{number:064x}",
        description="{}",
        sharpe=number / 64,
        outcome=outcome,
    )


def _ledger(folder: Path) -> Path:
    with TrialLedger(folder / "trials.sqlite") as ledger:
        for number in range(40):
            ledger.add(trial(number))
    return folder / "trials.sqlite"


def _read_ledger(file: Path, sound: Path) -> str:
    with TrialLedger(file) as ledger:
        ratios, found = ledger.sharpes(), ledger.records()
    wrong = [one.key for one in found if one != trial(int(one.key, 16))]
    wrong += [key for key, ratio in ratios.items() if ratio != int(key, 16) / 64]
    return f"wrong trials {wrong[:2]}" if wrong else ""


def _cache(folder: Path) -> Path:
    cache = VerdictCache(folder / "cache")
    cache.put_many([record(number) for number in range(40)])
    cache.put_model(identity())
    cache.close()
    return folder / "cache" / "cache.db"


def _read_cache(file: Path, sound: Path) -> str:
    """Read all there is, and store one more: what was read must be right, and stay there."""
    home = file.parent / f"{file.name}.folder"
    home.mkdir()
    os.replace(file, home / "cache.db")
    try:
        cache = VerdictCache(home)
        expected = {one.key: one for one in map(record, range(41))}
        found = cache.get_many(list(expected))
        cache.check()
        cache.put_many([record(40)])
        again = cache.get_many(list(expected))
        cache.close()
    finally:
        os.replace(home / "cache.db", file)
        for left in home.iterdir():
            left.unlink()
        home.rmdir()
    wrong = [key for key, one in [*found.items(), *again.items()] if one.body != expected[key].body]
    lost = set(found) - set(again)
    return f"wrong verdicts {wrong[:2]}" if wrong else f"lost verdicts {sorted(lost)[:2]}" if lost else ""


KINDS = {
    "headers": Kind(_header, _read_header),
    "packs": Kind(_pack, _read_pack),
    "manifests": Kind(_manifest, _read_manifest),
    "studies": Kind(_study, _read_study),
    "templates": Kind(_template, _read_template),
    "ledgers": Kind(_ledger, _read_ledger),
    "caches": Kind(_cache, _read_cache),
}
_WRITTEN_TO = ("ledgers", "caches")


def changed(content: bytes, draw: random.Random, first: int = 4096) -> bytes:
    """Return a content with one to four changes, half of them near its beginning, where the structure is."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        if not data:
            break
        end = len(data) if draw.random() < 0.5 else min(first, len(data))
        at, way = draw.randrange(end), draw.randrange(8)
        if way == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif way == 1:
            data[at : at + 8] = draw.randbytes(min(8, len(data) - at))
        elif way == 2:
            data[at:at] = draw.choice(INTERESTING)
        elif way == 3:
            piece = draw.choice(INTERESTING)
            data[at : at + len(piece)] = piece
        elif way == 4:
            del data[at : at + draw.randint(1, 40)]
        elif way == 5:
            del data[at:]
        elif way == 6:
            numbers = [found.span() for found in re.finditer(rb"-?\d+(?:\.\d+)?", data[:65536])]
            if numbers:
                start, stop = draw.choice(numbers)
                data[start:stop] = draw.choice(NUMBERS)
        else:
            lines = bytes(data).split(b"\n")
            one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
            lines[one], lines[other] = lines[other], lines[one]
            data = bytearray(b"\n".join(lines))
    return bytes(data)


def resealed(content: bytes, draw: random.Random) -> bytes:
    """Return JSON, a document or lines, with one to three values changed and its hash computed anew."""
    lines = content.splitlines()
    single = len(lines) != len([line for line in lines if line.startswith(b"{")]) or len(lines) == 1
    documents = [json.loads(content)] if single else [json.loads(line) for line in lines]
    for _ in range(draw.randint(1, 3)):
        _change_value(draw.choice(documents), draw)
    if single:
        return json.dumps(documents[0]).encode()
    head = {name: value for name, value in documents[0].items() if name != "sha256"}
    body = "".join(f"{json.dumps(one, sort_keys=True, separators=(',', ':'))}\n" for one in documents[1:])
    first = json.dumps(head, sort_keys=True, separators=(",", ":"))
    head["sha256"] = hashlib.sha256(f"{first}\n{body}".encode()).hexdigest()
    return f"{json.dumps(head, sort_keys=True, separators=(',', ':'))}\n{body}".encode()


def _change_value(document: Any, draw: random.Random) -> None:
    """Walk down at random, and replace, drop or double what is there."""
    while True:
        places = list(document if isinstance(document, dict) else range(len(document)))
        if not places:
            return
        place = draw.choice(places)
        inner = document[place]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.8:
            document = inner
            continue
        if draw.random() < 0.2:
            del document[place]
        elif draw.random() < 0.2 and isinstance(document, list):
            document.insert(place, inner)
        else:
            document[place] = copy.deepcopy(draw.choice(VALUES))
        return


class _LateError(BaseException):
    """A reader took too long."""


def _late(*_: Any) -> None:
    raise _LateError


def _one(kind: str, sound: Path, file: Path) -> Outcome:
    """Read one changed file, within the time limit."""
    before = file.read_bytes()
    signal.alarm(LIMIT_S)
    try:
        wrong = KINDS[kind].read(file, sound)
        outcome = Outcome(kind, "wrong", wrong) if wrong else Outcome(kind, "read")
    except BtLlmError as error:
        line = str(error)
        outcome = Outcome(kind, "refused" if "\n" not in line else "several lines", line)
    except _LateError:
        outcome = Outcome(kind, "hang", traceback.format_exc())
    except BaseException:
        outcome = Outcome(kind, "traceback", traceback.format_exc())
    finally:
        signal.alarm(0)
    if kind not in _WRITTEN_TO and file.read_bytes() != before:
        return Outcome(kind, "changed", "the reader changed the file")
    return outcome


def _work(kind: str, sound: Path, folder: Path, seeds: range, told: Connection) -> None:
    """In a process of its own: read changed files, and tell what comes of each."""
    signal.signal(signal.SIGALRM, _late)
    content = sound.read_bytes()
    for seed in seeds:
        file = folder / f"{kind}-{seed}{sound.suffix}"
        draw = random.Random(f"{kind} {seed}")
        by_value = kind in ("packs", "manifests") and draw.random() < 0.5
        file.write_bytes(resealed(content, draw) if by_value else changed(content, draw))
        told.send(_one(kind, sound, file))
        for left in folder.glob(f"{kind}-{seed}*"):
            left.unlink()


def attack(kind: str, folder: Path, count: int) -> Iterator[Outcome]:
    """Yield what comes of so many changed files of a kind, read in processes that may crash.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    folder : Path
        An empty folder.
    count : int
        How many files.
    """
    sound = KINDS[kind].make(folder)
    untouched = folder / f"untouched{sound.suffix}"
    untouched.write_bytes(sound.read_bytes())
    assert KINDS[kind].read(untouched, sound) == ""
    work = folder / "work"
    work.mkdir()
    if kind == "studies":
        (work / "cross.py").write_bytes((folder / "cross.py").read_bytes())
    context = multiprocessing.get_context("fork")
    done = 0
    while done < count:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(kind, sound, work, range(done, count), theirs))
        process.start()
        theirs.close()
        while True:
            try:
                if not ours.poll(3 * LIMIT_S):
                    process.kill()  # not even its alarm is heard
                    outcome = Outcome(kind, "hang", f"seed {done}: nothing for {3 * LIMIT_S} s")
                else:
                    outcome = ours.recv()
            except EOFError:
                process.join()
                if done < count:
                    yield Outcome(kind, "crash", f"seed {done}: exit code {process.exitcode}")
                    done += 1
                break
            yield outcome
            done += 1


def tally(outcomes: Iterator[Outcome]) -> tuple[Counter[str], list[Outcome]]:
    """Return how many outcomes there are of each sort, and the failures."""
    counted: Counter[str] = Counter()
    failures = []
    for one in outcomes:
        counted[one.what] += 1
        if one.is_failure:
            failures.append(one)
    return counted, failures
