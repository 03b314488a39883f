"""The words of a question: templates, from text to a prompt in the model's own chat format."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
