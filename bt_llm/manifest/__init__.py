"""Run manifests: everything a backtest was made of and what came of it, so that it can be run again.

`write_manifest` writes one after a run, `read_manifest` reads and checks it, and `reproduce` runs it again
from stored verdicts, without a model, and names the first thing that is not the same.
"""

from bt_llm.manifest._document import (
    DataFacts,
    ModelFacts,
    RunFacts,
    RunManifest,
    StrategyFacts,
    read_manifest,
)
from bt_llm.manifest._reproduce import Difference, Reproduction, reproduce
from bt_llm.manifest._write import write_manifest

__all__ = [
    "DataFacts",
    "Difference",
    "ModelFacts",
    "Reproduction",
    "RunFacts",
    "RunManifest",
    "StrategyFacts",
    "read_manifest",
    "reproduce",
    "write_manifest",
]
