"""kntrace shows how a language model comes to know a word."""

import lazy_loader

__version__ = "0.1.0"

# The public names are listed once, in __init__.pyi, where editors see them too. Nothing is
# imported before it is used, so that `import kntrace` needs neither torch nor zarr.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
