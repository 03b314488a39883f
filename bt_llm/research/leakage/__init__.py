"""Could the model have known? Five probes for what a model remembers of a market, and their controls."""
