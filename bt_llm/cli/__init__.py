"""The command ``bt-llm``: exit code 0 done, 1 the run failed (a line says why), 2 wrong usage, 130 Ctrl-C."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
