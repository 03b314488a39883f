"""Does the model add anything? Tests against chance, comparisons, walk-forward, leakage probes, studies."""
