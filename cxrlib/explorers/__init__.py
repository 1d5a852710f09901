"""Data of the interactive pages ``book/explore_r0.md`` and ``book/explore_conventions.md``.

``python -m cxrlib.explorers r0 RUNS OUT`` packs maps of finished LSE-LBA runs that differ in r0,
``python -m cxrlib.explorers conventions OUT`` maps of the models that come with the library. Each
writes a script of data, which a page can read without a server, and the still picture that is seen
where JavaScript is off. The page computes every score anew; what the library says of the same maps
stands in the data, and a test holds the page to it.
"""
