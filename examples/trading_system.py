"""
A trading system that frees its model
=====================================

It loads a model, has it judge several markets, decides, and frees it again, whatever happens. No model,
no trade.
"""

import sys

import matplotlib.pyplot as plt
import psutil

from bt_llm import ModelManager
from bt_llm.advice import MarketAnalysis, MarketAnalystAgent, Regime, RiskLevel

SIZES = {RiskLevel.LOW: 1.0, RiskLevel.MEDIUM: 0.5, RiskLevel.HIGH: 0.25}


class TradingSystem:
    """Decides on EUR/USD from the state of several markets."""

    def __init__(self, model_path: str = "smollm2", memory_threshold_mb: float = 512) -> None:
        self.llm_manager = ModelManager(model_path=model_path, memory_threshold_mb=memory_threshold_mb)
        self.market_analyst = MarketAnalystAgent(self.llm_manager)

    def analyze_and_trade(self, market_data: dict) -> dict:
        """Return the decision; the model is freed whatever happens. No model, no trade."""
        try:
            if not self.llm_manager.load_model():
                return {"action": "wait", "size": 0.0, "why": "the model cannot be loaded"}
            return self.make_decision(self.market_analyst.analyze(market_data), market_data)
        finally:
            self.llm_manager.unload_model()

    def make_decision(self, analysis: MarketAnalysis, market_data: dict) -> dict:
        """Follow the trend in a trending market, sized by the risk; else wait."""
        if not analysis.valid:
            return {"action": "wait", "size": 0.0, "why": f"no readable answer: {analysis.problem}"}
        why = f"{analysis.regime}, risk {analysis.risk_level}: {' '.join(analysis.recommendations)}"
        trend = market_data["eurusd"]["trend"]
        action = "buy" if "up" in trend else "sell" if "down" in trend else "wait"
        if analysis.regime is not Regime.TRENDING or action == "wait":
            return {"action": "wait", "size": 0.0, "why": why}
        return {"action": action, "size": SIZES[analysis.risk_level], "why": why}


def main(model_path: str = "smollm2") -> None:
    market_data = {
        "eurusd": {"trend": "up", "rsi": 65},
        "gold": {"state": "consolidating", "volatility": "low"},
        "vix": 14.5,
    }
    system = TradingSystem(model_path)
    process = psutil.Process()
    memory = {"before": process.memory_info().rss}
    system.llm_manager.load_model()  # a second time it is there already
    memory["loaded"] = process.memory_info().rss
    print(system.analyze_and_trade(market_data))
    print("model freed:", not system.llm_manager.is_loaded)
    memory["freed"] = process.memory_info().rss

    _, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.bar(list(memory), [size / 1e6 for size in memory.values()], color=("#b0b0b0", "#0b6e4f", "#b0b0b0"))
    axes.set_ylabel("memory of the process, MB")
    plt.show()


if __name__ == "__main__":
    main(*sys.argv[1:2])
