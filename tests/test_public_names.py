from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import bt_llm
from bt_llm import exceptions


def test_every_name_of_all_can_be_imported() -> None:
    for name in bt_llm.__all__:
        assert getattr(bt_llm, name).__name__ == name


def test_all_has_every_exception_and_is_sorted() -> None:
    assert set(exceptions.__all__) <= set(bt_llm.__all__)
    assert bt_llm.__all__ == sorted(set(bt_llm.__all__))
    assert set(bt_llm.__all__) <= set(dir(bt_llm))


def test_every_exception_is_a_bt_llm_error() -> None:
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), exceptions.BtLlmError)


def test_all_of_every_module_exists() -> None:
    for module in pkgutil.walk_packages(bt_llm.__path__, "bt_llm."):
        if module.name == "bt_llm.__main__":
            continue
        loaded = importlib.import_module(module.name)
        for name in getattr(loaded, "__all__", ()):
            assert hasattr(loaded, name), f"{module.name}.{name}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Gates"):
        _ = bt_llm.Gates


@pytest.mark.parametrize("heavy", ["llama_cpp", "pandas", "matplotlib", "backtrader"])
def test_importing_the_package_loads_nothing_heavy(heavy: str) -> None:
    code = f"import sys, bt_llm; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_using_the_indicator_does_not_load_llama_cpp_or_pandas() -> None:
    code = "import sys; from bt_llm import Gate, LLMAdvice; print({'llama_cpp', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
