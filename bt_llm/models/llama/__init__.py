"""Local GGUFs through llama.cpp: text, and exact scores."""
