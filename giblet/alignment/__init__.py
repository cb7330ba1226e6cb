"""Time: the hemodynamic response, the lag of BOLD, and which TRs train, validate and test."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
