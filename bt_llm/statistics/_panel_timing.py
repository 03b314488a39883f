"""What a gate is worth on many symbols at once, taken apart: pooled, and symbol by symbol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bt_llm.exceptions import DataError
from bt_llm.settings import in_short
from bt_llm.statistics._blocks import Resampled, automatic_block_length, resample
from bt_llm.statistics._inputs import Floats, annual_factor, between, by_name, in_blocks
from bt_llm.statistics._resampling import BootstrapResult, quantile_rank
from bt_llm.statistics._timing import PARTS, Legs, parts_made, parts_of, point, same_bars

__all__ = ["PanelParts", "take_apart_jointly"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PanelParts:
    """What a gate is worth on many symbols, taken apart.

    Attributes
    ----------
    pooled : dict of str to BootstrapResult
        ``whole`` and its parts, as from `take_apart`, summed over the symbols; each interval by itself.
    symbols : dict of str to dict of str to BootstrapResult
        What each symbol adds to them. The symbols' intervals of one part hold all at once, and their p-values
        are adjusted likewise.
    """

    pooled: dict[str, BootstrapResult]
    symbols: dict[str, dict[str, BootstrapResult]]


def take_apart_jointly(
    accounts: Mapping[str, tuple[Legs, Legs]],
    *,
    n: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    block_length: int | None = None,
    periods_per_year: float | None = None,
) -> PanelParts:
    """Return the mean return of many gated accounts less that of the ungated ones, taken apart.

    Parameters
    ----------
    accounts : mapping of str to (Legs, Legs)
        By symbol, gated and ungated: what each adds to the pooled account, so times its weight in that, and 0
        where it has none; all over the same bars.
    n, seed, confidence, block_length, periods_per_year
        As in `take_apart`. The block length is by default chosen from the pooled accounts.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    DataError
        If there is no account, or they have other bars.

    Notes
    -----
    Each symbol is taken apart by its own sides and exposures, and its parts are summed. So which symbols a
    gate is open in is no timing: it is in their exposures.
    Blocks of bars are drawn, the same ones of all symbols, so that what symbols have in common on a date
    stays in common.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> def legs(at, move):
    ...     names = ("short", "short_exposure", "cost", "traded")
    ...     return Legs(long=at * move / 2, long_exposure=at / 2, **dict.fromkeys(names, np.zeros(400)))
    >>> moves = rng.normal(0.0, 0.01, (2, 400)) + rng.normal(0.0, 0.01, 400)
    >>> held = np.ones(400)
    >>> found = take_apart_jointly({"knows": (legs(1.0 * (moves[0] > 0.0), moves[0]), legs(held, moves[0])),
    ...                             "open": (legs(held, moves[1]), legs(held, moves[1]))}, n=199)
    >>> found.pooled["timing"].low > 0.0, found.symbols["open"]["timing"].estimate
    (True, 0.0)
    """
    for name, pair in by_name(accounts, "accounts", "the legs of a gated and an ungated account").items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(
                f"accounts: {in_short(name)} has {in_short(pair)}: expected two Legs, gated and ungated"
            )
        same_bars(*pair)
    lengths = {len(legs) for pair in accounts.values() for legs in pair}
    if len(lengths) != 1:
        raise DataError(f"accounts of {sorted(lengths)} bars: expected one or more, all over the same bars")
    (bars,) = lengths
    rank = quantile_rank(n, between(confidence, 0.0, 1.0, "confidence"))
    columns = [np.column_stack([*gated.rows, *ungated.rows]) for gated, ungated in accounts.values()]
    if block_length is None:
        own, other = (sum(pair[side].returns for pair in accounts.values()) for side in (0, 1))
        length = automatic_block_length(np.column_stack([own, other, own - other]))
    else:
        length = in_blocks(block_length, bars)
    scale = annual_factor(periods_per_year)
    size = 1e-12 * max(float(np.abs(one[:, [0, 1, 2, 5, 6, 7]]).max(initial=0.0)) for one in columns)
    # The same seed, bars and block length draw the same blocks, whichever columns they are of.
    joined = np.concatenate(columns, axis=1)
    pooled = resample(joined, _summed, length=length, n=n, seed=seed)
    alone = {
        name: resample(one, parts_of, length=length, n=n, seed=seed)
        for name, one in zip(accounts, columns, strict=True)
    }
    return PanelParts(
        pooled=parts_made(pooled, rank, scale, confidence, length, size),
        symbols=_together(alone, rank, scale, confidence, length, size),
    )


def _summed(means: Floats) -> tuple[Floats, Floats]:
    """Return the parts from the means of ten columns a symbol, summed over the symbols, with gradients."""
    values, gradients = parts_of(means.reshape(*means.shape[:-1], -1, 10))
    flat = np.moveaxis(gradients, -3, -2).reshape(*means.shape[:-1], len(PARTS), means.shape[-1])
    return values.sum(axis=-2), flat


def _together(
    alone: Mapping[str, Resampled], rank: int, scale: float, confidence: float, length: int, size: float
) -> dict[str, dict[str, BootstrapResult]]:
    """Return every symbol's parts, the intervals of each part as wide as the largest error among symbols."""
    found: dict[str, dict[str, BootstrapResult]] = {name: {} for name in alone}
    for row, part in enumerate(PARTS):
        moving = [one for one in alone.values() if one.errors[row] > size]
        worst = np.max([np.abs(one.draws[row]) for one in moving], axis=0) if moving else np.zeros(0)
        for name, one in alone.items():
            estimate, error = float(one.estimates[row]), float(one.errors[row])
            if error <= size:
                found[name][part] = point(estimate * scale if abs(estimate) > size else 0.0, confidence)
                continue
            reach = float(np.sort(worst)[rank - 1]) * error
            found[name][part] = BootstrapResult(
                estimate=estimate * scale,
                low=(estimate - reach) * scale,
                high=(estimate + reach) * scale,
                confidence=confidence,
                p_value=(1 + int(np.sum(worst >= abs(estimate) / error))) / (1 + len(worst)),
                block_length=length,
                n=len(worst),
            )
    return found
