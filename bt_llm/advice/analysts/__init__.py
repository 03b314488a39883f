"""Analysts: typed answers about headlines, markets and trades."""
