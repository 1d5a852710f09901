"""cxrlib: weakly supervised chest X-ray diagnosis and localization, five papers compared.

This file imports nothing heavy, so that ``import cxrlib`` stays instant; take what you need from
the modules: :mod:`cxrlib.models`, :mod:`cxrlib.datasets`, :mod:`cxrlib.pooling`,
:mod:`cxrlib.metrics`.
"""

__version__ = "0.1.0"
