"""The networks, as pure functions that build Keras graphs: one file a paper.

A new architecture is a builder in a file of its own, a record in `tl_toolkit.catalog.registry`, and
then a run of `python -m tl_toolkit.architectures.generate`.
"""
