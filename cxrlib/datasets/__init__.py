"""Datasets behind one type; see :mod:`cxrlib.datasets.base` for what a sample holds."""
