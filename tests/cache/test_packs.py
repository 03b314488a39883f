from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_llm.cache import Pack, Record, VerdictCache, export_pack, import_pack, merge_packs
from bt_llm.cache import _pack_files as pack_files
from bt_llm.cache import _packs as packs
from bt_llm.cache._models import model_document
from bt_llm.cache._pack_files import read_pack, write_pack
from bt_llm.data import shipped
from bt_llm.exceptions import ConfigError, PackError
from bt_llm.plain_json import canonical_json
from bt_llm.verdicts import Verdict
from tests.cache_cases import MODEL, Model, identity, question, record, verdict

OTHER = "ef" * 32


@pytest.fixture
def cache(tmp_path: Path) -> VerdictCache:
    """A cache with the verdicts on questions 0 to 4, and the model's identity."""
    filled = VerdictCache(tmp_path / "cache")
    filled.fetch([question(n) for n in range(5)], Model())
    filled.put_model(identity())
    return filled


@pytest.fixture
def pack(cache: VerdictCache, tmp_path: Path) -> Path:
    """The pack of that cache."""
    export_pack(cache, tmp_path / "pack.jsonl", template="bias", version=1)
    return tmp_path / "pack.jsonl"


def written(path: Path, *records: Record, **about: Any) -> Path:
    """A pack of those records, at `path`."""
    one = Pack(
        records=records, models=(model_document(identity(), ["small"]),), about=(about,) if about else ()
    )
    path.write_text(one.text, encoding="ascii", newline="\n")
    return path


# What is in the file.


def test_the_file_is_what_the_format_says(tmp_path: Path) -> None:
    one = Pack(
        records=(record(1, written="2024-01-01T00:00:00+00:00", milliseconds=3.5, tokens=9),),
        models=(model_document(identity(), ["small"]),),
        about=({"template": "bias"},),
    )
    first, *rest = one.text.splitlines()
    manifest = json.loads(first)
    stated = manifest.pop("sha256")
    assert stated == one.sha256
    unsigned = "\n".join([canonical_json(manifest), *rest, ""])
    assert stated == hashlib.sha256(unsigned.encode()).hexdigest()
    assert manifest == {
        "about": [{"template": "bias"}],
        "counts": {"models": 1, "verdicts": 1},
        "format": 1,
        "kind": "bt_llm pack",
        "models": [
            {
                "names": ["small"],
                "sha256": MODEL,
                "chat_template": "{{ messages }}",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "details": {"parameters": 135},
            }
        ],
    }
    *parts, last = [json.loads(line) for line in rest]
    values = {part["id"]: part["value"] for part in parts}
    assert list(values) == sorted(values)
    assert last["key"] == question(1).key
    assert [values[name] for name in last["prompt"]] == list(question(1).prompt)
    assert values[last["provenance"]] == {"tokens": 9}
    settings = question(1).document
    del settings["prompt"]
    assert values[last["settings"]] == settings
    assert last["verdict"] == verdict(1).to_dict()
    assert len(parts) == 5


def test_what_is_shared_is_stored_once(tmp_path: Path) -> None:
    long = "All of this is said before every state. " * 50
    records = [
        Record(question(n, prompt=(long, f"{n}\n", "Bias:")), verdict(n), {"cpu": "x" * 500})
        for n in range(105)
    ]
    text = Pack(records=tuple(records)).text
    assert text.count(long) == 1
    assert len(text) < 60_000


def test_the_same_verdicts_give_the_same_bytes(tmp_path: Path) -> None:
    texts = []
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        cache = VerdictCache(tmp_path / name)
        for number in order:
            cache.put_many([record(number, written=f"{name}{number}", milliseconds=float(number), threads=2)])
        texts.append(export_pack(cache, tmp_path / f"{name}.jsonl", template="bias").text)
        assert (tmp_path / f"{name}.jsonl").read_text(encoding="ascii") == texts[-1]
    assert texts[0] == texts[1]


# There and back.


def test_a_pack_replays_on_a_machine_without_the_model(pack: Path, tmp_path: Path) -> None:
    elsewhere = VerdictCache(tmp_path / "elsewhere", "replay")
    report = import_pack(elsewhere, pack)
    assert (report.verdicts, report.added, report.models) == (5, 5, 1)
    assert report.sha256 == read_pack(pack).sha256
    asked = [question(n) for n in (4, 0, 4)]
    verdicts = elsewhere.fetch(asked, lambda _: pytest.fail("the model was asked"))
    assert verdicts == [verdict(4), verdict(0), verdict(4)]
    assert elsewhere.find_models("small") == [identity()]
    assert export_pack(elsewhere, tmp_path / "again.jsonl", template="bias", version=1) == read_pack(pack)
    assert (tmp_path / "again.jsonl").read_bytes() == pack.read_bytes()


def test_importing_again_changes_nothing(cache: VerdictCache, pack: Path) -> None:
    before = {one.key: one.body for one in cache.records()}
    report = import_pack(cache, pack)
    assert (report.added, report.unchanged, report.replaced, report.kept) == (0, 5, 0, 0)
    assert {one.key: one.body for one in cache.records()} == before


def test_chosen_verdicts_and_their_models_are_exported(cache: VerdictCache, tmp_path: Path) -> None:
    cache.put_many([Record(question(1, model_sha256=OTHER), verdict(1))])
    cache.put_model(identity(sha256=OTHER, name="large"))
    keys = [question(3).key, question(2).key]
    one = export_pack(cache, tmp_path / "two.jsonl", keys)
    assert [r.key for r in one.records] == sorted(keys)
    assert [i.name for i in one.identities] == ["small"]
    assert export_pack(cache, tmp_path / "none.jsonl", []).records == ()
    with pytest.raises(
        PackError, match=r"1 of 2 verdicts to export are not in .*, such as 000000000000: record"
    ):
        export_pack(cache, tmp_path / "missing.jsonl", [keys[0], "0" * 64])
    with pytest.raises(PackError, match="expected JSON values"):
        export_pack(cache, tmp_path / "wrong.jsonl", keys, space=object())
    assert not (tmp_path / "missing.jsonl").exists()


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    cache: VerdictCache, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pack.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack_files.os, "fsync", full)
    with pytest.raises(PackError, match=r"cannot be written \(No space left on device\); name another file"):
        export_pack(cache, pack)
    assert pack.read_bytes() == before
    assert sorted(os.listdir(pack.parent)) == ["cache", "pack.jsonl"]
    with pytest.raises(PackError, match="cannot be written"):
        export_pack(cache, pack.parent / "no" / "pack.jsonl")


# Conflicts.


def test_a_conflict_on_import_is_refused_unless_told_which_wins(cache: VerdictCache, tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", record(1, voice=1), record(2), record(9))
    before = {one.key: one.body for one in cache.records()}
    with pytest.raises(
        PackError, match=rf"have different verdicts for 1 keys \({question(1).key[:12]}\): nothing"
    ):
        import_pack(cache, path)
    assert {one.key: one.body for one in cache.records()} == before
    ours = import_pack(cache, path, "ours")
    assert (ours.added, ours.unchanged, ours.replaced, ours.kept) == (1, 1, 0, 1)
    assert cache.get_many([question(1).key])[question(1).key].verdict == verdict(1)
    theirs = import_pack(cache, path, "theirs")
    assert (theirs.added, theirs.unchanged, theirs.replaced, theirs.kept) == (0, 2, 1, 0)
    assert cache.get_many([question(1).key])[question(1).key].verdict == verdict(1, 1)
    with pytest.raises(ConfigError, match="expected refuse, ours or theirs"):
        import_pack(cache, path, "mine")  # type: ignore[arg-type]


def test_another_chat_template_of_one_model_is_a_conflict(cache: VerdictCache, tmp_path: Path) -> None:
    other = Pack(records=(), models=(model_document(identity(chat_template="x"), ["other"]),))
    path = tmp_path / "p.jsonl"
    path.write_text(other.text)
    with pytest.raises(
        PackError, match=r"model abababababab \(small\) has another chat template on each side"
    ):
        import_pack(cache, path)
    import_pack(cache, path, "ours")
    assert cache.find_models("other") == [identity(name="other")]
    import_pack(cache, path, "theirs")
    assert cache.find_models("small") == [identity(chat_template="x")]


def test_a_conflict_on_merge_is_refused_unless_told_which_wins(tmp_path: Path) -> None:
    one = written(tmp_path / "1.jsonl", *(record(n) for n in range(5)))
    two = written(tmp_path / "2.jsonl", *(record(n, voice=1) for n in range(1, 6)))
    with pytest.raises(PackError, match=r"for 4 keys \(.{12}, .{12}, .{12}, \.\.\.\): nothing is written"):
        merge_packs([one, two], tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    for choice, voice in (("ours", 0), ("theirs", 1)):
        merged = merge_packs([one, two], tmp_path / "out.jsonl", choice)  # type: ignore[arg-type]
        expected = [record(0), *(record(n, voice) for n in range(1, 5)), record(5, 1)]
        assert {r.key: r.verdict for r in merged.records} == {r.key: r.verdict for r in expected}
        assert read_pack(tmp_path / "out.jsonl") == merged
    with pytest.raises(PackError, match="no packs to merge"):
        merge_packs([], tmp_path / "out.jsonl")


def test_packs_merge_in_any_order_to_the_same_bytes(tmp_path: Path) -> None:
    parts = [
        written(tmp_path / "1.jsonl", *(record(n, threads=1) for n in range(3)), template="a"),
        written(tmp_path / "2.jsonl", *(record(n, threads=2) for n in range(2, 5)), template="b"),
        written(tmp_path / "3.jsonl", record(2), record(7, threads=1), template="a"),
    ]
    texts = {merge_packs(list(order), tmp_path / "out.jsonl").text for order in itertools.permutations(parts)}
    left = merge_packs([merge(tmp_path, parts[0], parts[1]), parts[2]], tmp_path / "out.jsonl").text
    right = merge_packs([parts[0], merge(tmp_path, parts[1], parts[2])], tmp_path / "out.jsonl").text
    assert texts == {left} == {right}
    merged = read_pack(tmp_path / "out.jsonl")
    assert merged.about == ({"template": "a"}, {"template": "b"})
    assert {r.key: r.provenance for r in merged.records}[question(2).key] == {"threads": 1}


def merge(folder: Path, *parts: Path) -> Path:
    merge_packs(parts, folder / "between.jsonl")
    return folder / "between.jsonl"


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=5), min_size=2, max_size=4)
)
def test_merging_is_associative_and_commutative(lists: list[list[tuple[int, int]]]) -> None:
    made = [
        Pack(
            records=tuple({n: record(n, threads=threads) for n, threads in one}.values()),
            models=(model_document(identity(details={"size": len(one)}), [f"name{len(one)}"]),),
        )
        for one in lists
    ]

    def fold(order: list[Pack]) -> str:
        merged = order[0]
        for one in order[1:]:
            merged = packs._merged(merged, one, "refuse")
        return merged.text

    head, *tail = made
    right = packs._merged(head, Pack(records=()), "refuse")
    for one in tail:
        right = packs._merged(one, right, "refuse")
    assert fold(made) == fold(made[::-1]) == right.text == fold([*made, made[0]])


# A file that somebody else wrote.


def test_every_altered_byte_is_found(pack: Path) -> None:
    whole = pack.read_bytes()
    for at in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[at] ^= 1
        pack.write_bytes(bytes(changed))
        with pytest.raises(PackError, match=r"pack.jsonl, line \d+: "):
            read_pack(pack)


def test_every_cut_is_found(pack: Path) -> None:
    whole = pack.read_bytes()
    for kept in range(1, len(whole) - 1, 11):
        pack.write_bytes(whole[:kept])
        with pytest.raises(PackError, match=r"pack.jsonl, line"):
            read_pack(pack)
    lines = whole.splitlines(keepends=True)
    for lost in range(len(lines)):
        pack.write_bytes(b"".join(lines[:lost] + lines[lost + 1 :]))
        with pytest.raises(PackError):
            read_pack(pack)


def test_lines_in_another_order_are_found(pack: Path) -> None:
    first, second, third, *rest = pack.read_bytes().splitlines(keepends=True)
    pack.write_bytes(b"".join([first, third, second, *rest]))
    with pytest.raises(PackError, match=r"line 2: it is out of order, not needed or not canonical JSON"):
        read_pack(pack)


def test_two_parts_under_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_files, "_part_id", lambda value: "0" * 16)
    with pytest.raises(PackError, match="two parts of the pack have the same id 0000000000000000"):
        _ = Pack(records=(record(1),)).text


def test_nothing_of_a_bad_pack_is_imported(pack: Path, tmp_path: Path) -> None:
    pack.write_bytes(pack.read_bytes()[:-1])
    with pytest.raises(PackError, match="it has no end: the file was cut off"):
        import_pack(VerdictCache(tmp_path / "elsewhere"), pack)
    assert not (tmp_path / "elsewhere").exists()


def resigned(path: Path, lines: list[dict[str, Any]]) -> Path:
    """Write those lines with the hash that fits them, as somebody would who wants to be believed."""
    manifest, *rest = lines
    manifest = {name: value for name, value in manifest.items() if name != "sha256"}
    body = "".join(f"{canonical_json(line)}\n" for line in rest)
    digest = hashlib.sha256(f"{canonical_json(manifest)}\n{body}".encode()).hexdigest()
    path.write_bytes(f"{canonical_json({**manifest, 'sha256': digest})}\n{body}".encode())
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def part(value: Any) -> dict[str, Any]:
    return {"id": hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16], "value": value}


def test_a_pack_with_a_fitting_hash_is_still_checked(pack: Path) -> None:
    good = lines_of(pack)
    first = next(at for at, line in enumerate(good) if "key" in line)
    assert read_pack(resigned(pack, good)).records

    def refused(message: str, lines: list[dict[str, Any]]) -> None:
        with pytest.raises(PackError, match=message):
            read_pack(resigned(pack, lines))

    def with_line(at: int, line: dict[str, Any]) -> list[dict[str, Any]]:
        return [*good[:at], line, *good[at + 1 :]]

    def with_verdict(**changes: Any) -> list[dict[str, Any]]:
        return with_line(first, good[first] | changes)

    bomb = part("x" * 2**16)
    refused("expected the first line of a pack", with_line(0, good[0] | {"kind": "x"}))
    refused("line 1: format 2: this bt_llm reads 1", with_line(0, good[0] | {"format": 2}))
    refused("expected lists of objects", with_line(0, good[0] | {"models": [1]}))
    refused("line 1: stored identity", with_line(0, good[0] | {"models": [{}]}))
    refused("twice", with_line(0, good[0] | {"models": good[0]["models"] * 2}))
    refused("SHA-256 or counts", with_line(0, good[0] | {"counts": {"models": 1, "verdicts": 4}}))
    refused("SHA-256 or counts", with_line(0, good[0] | {"more": 1}))
    refused("line 2: expected a part", with_line(1, good[1] | {"id": "0" * 16}))
    refused("line 2: expected a part", with_line(1, good[1] | {"more": 1}))
    refused("or a verdict", with_verdict(more=1))
    refused("names a part that is not in the pack", with_verdict(settings="0" * 16))
    refused("names a part that is not in the pack", with_verdict(prompt="text"))
    refused("names a part that is not in the pack", with_verdict(prompt=[["x"]]))
    refused("not of the right kind", with_verdict(prompt=[good[first]["settings"]]))
    refused("not of the right kind", with_verdict(settings=good[first]["prompt"][0]))
    refused("verdict and provenance must be objects", with_verdict(provenance=good[first]["prompt"][0]))
    refused("the question stored under", with_verdict(prompt=good[first]["prompt"][::-1]))
    refused("the question stored under", with_verdict(key="0" * 64))
    refused("not finite floats", with_verdict(verdict={"bullish": 1}))
    refused("a prompt of 1114112 characters", [good[0], bomb, *with_verdict(prompt=[bomb["id"]] * 17)[1:]])
    refused("SHA-256 or counts", [good[0], part("unused"), *good[1:]])
    refused("twice", [*good, good[-1]])
    refused("SHA-256 or counts", [*good[:-2], good[-1], good[-2]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a pack of 1 to"),
        (b"\n", "line 1: Expecting value"),
        (b"{}\n", "expected the first line of a pack"),
        (b"[]\n", "expected a JSON object"),
        (b"\xff\xfe\n", "line 1: 'ascii' codec"),
        (b"[" * 100_000 + b"\n", "nested too deeply"),
        (b'{"kind": NaN}\n', "NaN is not JSON"),
        (b'{"kind":"bt_llm pack"}\r\n', r"Windows line ends: get the file again \(in git, mark"),
    ],
)
def test_what_is_no_pack_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(data)
    with pytest.raises(PackError, match=message):
        read_pack(tmp_path / "p.jsonl")


def test_a_missing_or_far_too_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PackError, match=r"cannot be read \(No such file"):
        read_pack(tmp_path / "none.jsonl")
    monkeypatch.setattr(pack_files, "MAX_MB", 0)
    path = written(tmp_path / "p.jsonl", record(1))
    with pytest.raises(PackError, match=r"it is over 0 MB; set BT_LLM_MAX_MB to read more"):
        read_pack(path)
    monkeypatch.setenv("BT_LLM_MAX_MB", "1")
    assert len(read_pack(path).records) == 1


def test_a_pack_that_unpacks_to_far_more_than_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [question(n, prompt=("x" * 60_000, str(n))) for n in range(150)]
    path = written(tmp_path / "p.jsonl", *(Record(one, verdict(1), {}) for one in asked))
    assert len(read_pack(path).records) == 150
    monkeypatch.setattr(pack_files, "_UNPACKED_MB", 0)
    monkeypatch.setattr(pack_files, "_UNPACKED_TIMES", 50)
    with pytest.raises(PackError, match=r"line \d+: its prompts unpack to over a hundred times its size"):
        read_pack(path)
    monkeypatch.setenv("BT_LLM_MAX_MB", "10")
    assert len(read_pack(path).records) == 150


def test_an_invalid_verdict_travels(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", Record(question(1), Verdict.invalid("no JSON ↯"), {}))
    (read,) = read_pack(path).records
    assert (read.verdict.valid, read.verdict.reason) == (False, "no JSON ↯")
    cache = VerdictCache(tmp_path / "cache")
    import_pack(cache, path)
    assert import_pack(cache, path).unchanged == 1


def test_a_compressed_pack_is_the_same_pack(tmp_path: Path) -> None:
    pack = read_pack(shipped("demo_pack.jsonl"))
    write_pack(pack, tmp_path / "pack.jsonl.gz")

    content = (tmp_path / "pack.jsonl.gz").read_bytes()
    assert read_pack(tmp_path / "pack.jsonl.gz") == pack
    assert len(content) < shipped("demo_pack.jsonl").stat().st_size / 3
    write_pack(pack, tmp_path / "again.jsonl.gz")
    assert (tmp_path / "again.jsonl.gz").read_bytes() == content  # no time and no name is in it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-9], "cut off, or something follows"),
        (lambda content: content + b"more", "cut off, or something follows"),
        (lambda content: content[:40] + bytes([content[40] ^ 255]) + content[41:], "compression is damaged"),
        (lambda content: gzip.compress(bytes(2**20)), "over 1,048,575 bytes unpacked"),
    ],
)
def test_a_compressed_pack_that_is_damaged_or_too_large_is_refused(
    change: Callable[[bytes], bytes], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = read_pack(shipped("demo_pack.jsonl"))
    write_pack(pack, tmp_path / "pack.jsonl.gz")
    monkeypatch.setattr("bt_llm.cache._pack_files.most_bytes", lambda _: 2**20 - 1)
    (tmp_path / "pack.jsonl.gz").write_bytes(change((tmp_path / "pack.jsonl.gz").read_bytes()))

    with pytest.raises(PackError, match=message):
        read_pack(tmp_path / "pack.jsonl.gz")
