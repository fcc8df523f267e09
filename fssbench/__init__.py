"""A plugin-based benchmark framework for few-shot semantic segmentation.

The public names are those of the stub file beside this one. They are imported on first access: most
of them need torch, and modules with specs must not import it.
"""

import lazy_loader

from fssbench._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
