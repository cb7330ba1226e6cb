"""Simulated movie data with planted truth, written as the real files of a data folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
