"""Statistics that tell an edge from luck, each with the source of its formula.

- Figures of one account: `sharpe_ratio`, `sortino_ratio`, `max_drawdown`, `calmar_ratio`, `annual_growth`,
  `volatility`, `drawdowns`, `market_model`; of its trades: `profit_factor`, `expectancy`,
  `system_quality_number`.
- A Sharpe ratio against its own sampling error and the number of trials:
  `probabilistic_sharpe_ratio`, `expected_max_sharpe`, `deflated_sharpe_ratio`,
  `min_track_record_length`, all of which take returns or their `ReturnMoments`.
- A search: `probability_of_backtest_overfitting`.
- Two strategies on the same bars, and one among random ones: `paired_bootstrap`, `rank_p_value`,
  `permute_runs`.
- Many pairs at once, such as the symbols of a panel, resampled by the same dates: `joint_differences`.
- Several strategies at once: `stepwise_differences` (intervals that hold together, p-values adjusted for each
  other), `model_confidence_set`, `superior_predictive_ability`, `best_of`; `pooled` makes one series of many.
- Whether forecasts are right at the right times: `rolled_skill`, on labels or on `brier_rows` and `log_rows`.
- What a gate is worth, taken apart into exposure, side, cost and timing: `Legs`, `take_apart`, of many
  symbols `take_apart_jointly`, `timing_of`, `breakeven_cost`, `cost_curve`, `detectable`.
- Whether a difference changed from one stretch of time to another: `change_of_effect`.
- Whether weights follow outcomes among bars that looked alike: `exchange_test`; several p-values: `holm`.
- What an answer depends on, where it is known for all combinations: `factor_shares`, `changed_share`.
- Orders of bars for histories that never happened: `stationary_order`, `phase_order`.
- Two models' verdicts, and one's confidence: `agreement_matrix`, `cohens_kappa`, `mcnemar`,
  `brier_score`, `reliability_table`.

Returns are simple returns per bar and the risk-free rate is zero. A value that is not finite is
refused with `DataError`, never dropped. What chooses a block length for itself, and
`superior_predictive_ability`, need more than numpy and pandas: ``arch``, from
``pip install 'bt-llm[research]'``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
