"""What is judged and what comes of it: the state space, the labels, the verdict, and its calibration."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
