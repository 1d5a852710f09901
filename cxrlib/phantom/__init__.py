"""A procedural digital chest phantom: every pixel of every finding is known.

Three parts that do not know each other's insides: :mod:`~cxrlib.phantom.anatomy` says how much
lung, soft tissue and bone each ray crosses, :mod:`~cxrlib.phantom.lesions` changes that for the 14
findings, :mod:`~cxrlib.phantom.physics` turns path lengths into a radiograph.
:mod:`~cxrlib.phantom.population` draws patients, :mod:`~cxrlib.phantom.dataset` keeps their images
and splits them. It is a teaching model: a result on it says nothing of patients.
"""
