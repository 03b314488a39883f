"""Who answers: local GGUFs, servers and scripts; their files, and the manager that loads them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
