"""Which quantizations llama.cpp reads prompts slowly in, and how slowly where that was measured."""

from __future__ import annotations

import platform

__all__ = ["slow_quantization"]

_TIMES_Q8_0 = {"Q4_1": 2.2, "Q5_1": 2.5}
"""Processor time of a prompt, over that of the same model in Q8_0: the table in ``models/README.md``."""

_X86 = ("x86_64", "amd64", "i686", "x86")


def slow_quantization(quantization: object) -> str:
    """Return what is to be said of a model's quantization on this kind of processor; empty where nothing is.

    llama.cpp has fast kernels for the prompts of most quantizations, and none on x86 for two old ones.

    Parameters
    ----------
    quantization : str
        As a file's header has it, such as ``Q4_1``; what is no text is not known.

    Examples
    --------
    >>> slow_quantization("Q8_0")
    ''
    """
    times = _TIMES_Q8_0.get(quantization) if isinstance(quantization, str) else None
    if times is None or platform.machine().lower() not in _X86:
        return ""
    return (
        f"{quantization} is slow on x86 processors: prompts took {times:g} times as long as in Q8_0 where it "
        "was measured (models/README.md)"
    )
