"""The recipes of docs/decisions.md, run as they stand on small samples in the logs' own shapes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bt_llm.models import DecisionsModel

DOCS = Path(__file__).parent.parent / "docs" / "decisions.md"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words: str) -> list[tuple[str, str, str]]:
    """Run the imports of the page, and the recipe that follows some of its words; return what it wrote."""
    text = DOCS.read_text(encoding="utf-8")
    assert text.count(words) == 1
    block = re.compile(r"```python\n(.*?)```", flags=re.S)
    first, recipe = block.search(text), block.search(text, text.index(words))
    assert first is not None
    assert recipe is not None
    names: dict[str, Any] = {}
    exec(first[1] + recipe[1], names)
    rows = DecisionsModel("decisions.csv").book.rows
    return [(row.time.isoformat(), row.symbol, row.decision) for row in rows]


def test_trading_agents(folder: Path) -> None:
    for symbol, day, prose in (
        ("NVDA", "2024-05-10", "A SELL was discussed. FINAL TRANSACTION PROPOSAL: **BUY**"),
        ("NVDA", "2024-05-13", "Rating: Underweight. Trim on strength."),
        ("AAPL", "2024-05-10", "No word of it."),
    ):
        logs = folder / "eval_results" / symbol / "TradingAgentsStrategy_logs"
        logs.mkdir(parents=True, exist_ok=True)
        state = {
            "company_of_interest": symbol,
            "trade_date": day,
            "market_report": "...",
            "investment_debate_state": {"judge_decision": "HOLD"},
            "final_trade_decision": prose,
        }
        (logs / f"full_states_log_{day}.json").write_text(json.dumps({day: state}))
    assert run("**TradingAgents**") == [
        ("2024-05-10T00:00:00", "NVDA", "BUY"),
        ("2024-05-13T00:00:00", "NVDA", "UNDERWEIGHT"),
    ]


def test_lumibot(folder: Path) -> None:
    (folder / "trades.csv").write_text(
        "time,strategy,exchange,symbol,side,type,status,price,filled_quantity,trade_cost\n"
        "2024-05-10 09:30:00-04:00,Trend,,SPY,buy,market,new,,,\n"
        "2024-05-10 09:30:00-04:00,Trend,,SPY,buy,market,fill,520.17,10,0.0\n"
        "2024-05-14 09:30:00-04:00,Trend,,SPY,sell_short,market,fill,521.11,10,0.0\n"
    )
    assert run("**LumiBot**") == [
        ("2024-05-10T09:30:00-04:00", "SPY", "buy"),
        ("2024-05-14T09:30:00-04:00", "SPY", "sell"),
    ]


def test_freqtrade(folder: Path) -> None:
    (folder / "signals.csv").write_text(
        "date,open,high,low,close,volume,rsi,enter_long,enter_short,enter_tag,pair\n"
        "2024-05-10 11:00:00+00:00,1,1,1,1,5,30.1,1,0,dip,BTC/USDT\n"
        "2024-05-10 12:00:00+00:00,1,1,1,1,5,50.2,,,,BTC/USDT\n"
        "2024-05-10 13:00:00+00:00,1,1,1,1,5,71.3,0.0,1.0,,BTC/USDT\n"
    )
    assert run("**freqtrade**") == [
        ("2024-05-10T11:00:00+00:00", "BTC/USDT", "buy"),
        ("2024-05-10T12:00:00+00:00", "BTC/USDT", "hold"),
        ("2024-05-10T13:00:00+00:00", "BTC/USDT", "sell"),
    ]
