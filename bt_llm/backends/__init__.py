"""What answers prompts: llama.cpp on this machine, or a script."""
