"""How often the probes for leakage catch scripted models that remember, and honest ones: docs/leakage.md."""
