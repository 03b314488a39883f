"""
A trading system that frees its model
=====================================

It loads a model, has it judge several markets, decides, and frees it again, whatever happens. No model,
no trade.
"""

import sys

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
    print(system.analyze_and_trade(market_data))
    print("model freed:", not system.llm_manager.is_loaded)


if __name__ == "__main__":
    main(*sys.argv[1:2])
