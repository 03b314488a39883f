from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bt_llm.exceptions import ConfigError
from bt_llm.models import DatedFamily, DatedModel, Member, kind_of

DAYS = st.dates(datetime.date(1990, 1, 1), datetime.date(2030, 12, 31))
OFFSETS = st.integers(-14 * 60, 14 * 60).map(
    lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes))
)
MOMENTS = st.datetimes(
    datetime.datetime(1989, 1, 1), datetime.datetime(2031, 12, 31), timezones=OFFSETS, allow_imaginary=False
)


def family(*days: str) -> DatedFamily:
    return DatedFamily([Member(f"m{day}", datetime.date.fromisoformat(day)) for day in days])


@given(st.lists(DAYS, min_size=1, max_size=12, unique=True), MOMENTS)
def test_no_member_may_know_anything_of_its_bar_and_none_newer_was_left_out(
    days: list[datetime.date], opened: datetime.datetime
) -> None:
    found = DatedFamily([Member(str(day), day) for day in days])
    place = found.member_at(opened)
    in_utc = opened.astimezone(datetime.UTC).date()
    known = {day for day in days if day < in_utc}  # a whole day before the bar's own, in UTC
    assert place == len(known) - 1
    if place >= 0:
        member = found.members[place]
        assert member.ended <= opened
        assert member.knowledge_ends == max(known)


def test_a_day_ends_at_midnight_in_utc_wherever_the_bars_are() -> None:
    two = family("2020-12-31", "2021-12-31")
    tokyo = datetime.timezone(datetime.timedelta(hours=9))
    assert two.member_at(datetime.datetime(2022, 1, 1, 8, 59, tzinfo=tokyo)) == 0
    assert two.member_at(datetime.datetime(2022, 1, 1, 9, 0, tzinfo=tokyo)) == 1
    assert two.member_at(datetime.datetime(2020, 12, 31, 23, 59, tzinfo=datetime.UTC)) == -1
    with pytest.raises(ConfigError, match="with its zone"):
        two.member_at(datetime.datetime(2022, 1, 1))


def write(folder: Path, text: str) -> Path:
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_start_beside_the_file_and_names_stay_names(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'format = 1\n[[member]]\nmodel = "b.gguf"\nknowledge_ends = 2021-12-31\n'
        '[[member]]\nmodel = "scripted:trend"\nknowledge_ends = "2020-12-31"\n'
        '[[member]]\nmodel = "smollm2"\nknowledge_ends = 2022-12-31\n',
    )
    found = DatedFamily.read(path)
    assert [one.model for one in found.members] == ["scripted:trend", str(tmp_path / "b.gguf"), "smollm2"]
    assert DatedFamily.parse(found.inline) == found


MEMBER = '[[member]]\nmodel = "scripted:trend"\nknowledge_ends = 2020-12-31\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "format None"),
        ("format = 2\n", "format 2"),
        ("format = true\n", "format True"),
        ("format = 1\n", r"expected \[\[member\]\]"),
        ("format = 1\nmember = []\n", "no members"),
        ("format = 1\nmember = [3]\n", "a member with 3"),
        ("format = 1\nkind = 'x'\n" + MEMBER, r"unknown keys \['kind'\]"),
        ("format = 1\n" + MEMBER + MEMBER, "knowledge_ends '2020-12-31' is there twice"),
        ("format = 1\n" + MEMBER + MEMBER.replace("2020", "2021"), "model 'scripted:trend' is there twice"),
        ("format = 1\n" + MEMBER.replace("2020-12-31", "2020"), "expected a day"),
        ("format = 1\n" + MEMBER.replace("2020-12-31", "2020-12-31T10:00:00Z"), "expected a day"),
        ("format = 1\n" + MEMBER.replace("2020-12-31", '"soon"'), "expected a day"),
        ("format = 1\n" + MEMBER.replace('"scripted:trend"', "7"), "model = 7"),
        ("format = 1\n" + MEMBER.replace("scripted:trend", "dated:x.toml"), "cannot be a member"),
        (
            "format = 1\n" + MEMBER.replace("scripted:trend", "openai:http://a.b/v1?model=m"),
            "network",
        ),
        ("format = 1\n[[member]]\nmodel = 'a'\n", "expected model and knowledge_ends"),
        ("format = = 1\n", "not TOML"),
        ("format = 1\n" + "a.b." * 5_000 + "c = 1\n", "a line of over 2,000 characters"),
    ],
)
def test_a_file_that_is_no_family_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        DatedFamily.read(write(tmp_path, text))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    large = write(tmp_path, "#" * (2 << 20))
    for path, said in ((tmp_path, "directory"), (tmp_path / "no.toml", "No such file"), (large, "1 MB")):
        with pytest.raises(ConfigError, match=said):
            DatedFamily.read(path)


def test_members_that_the_user_types_may_be_asked_over_the_network_and_are_told_of() -> None:
    model = kind_of("dated:2020-12-31=openai:http://127.0.0.1:1/v1?model=a,2021-12-31=scripted:trend")
    assert isinstance(model, DatedModel)
    assert model.addresses == ("http://127.0.0.1:1/v1",)


@pytest.mark.parametrize(
    "rest", ["", "2020-12-31=", "2020-12-31=scripted:trend,x", "2020-13-31=scripted:trend"]
)
def test_members_that_are_mistyped_are_refused(rest: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        _ = DatedModel(rest).family
