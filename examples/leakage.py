"""
Could the model have known?
===========================

Could the model have known? Five probes on a scripted model that remembers, and on one that does not.
"""

from bt_llm import AdvisorConfig
from bt_llm.data import shipped
from bt_llm.research import leakage_probes

BARS = shipped("sp500_daily.csv")
CUTOFF = "2012-12-31"

for model in (f"memory:{BARS}?until={CUTOFF}&share=0.5", "scripted:trend"):
    config = AdvisorConfig(model=model, cache_mode="off")
    found = leakage_probes(BARS, config, name="S&P 500", cutoff=CUTOFF, points=200, controls=False)
    print("\n- ".join([found.model, *found.sentences]), end="\n\n")
