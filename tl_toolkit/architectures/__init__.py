"""The networks: what is known about them, and how they are drawn, one file a paper.

`catalog` is plain data and imports no Keras; everything that draws does. A new architecture is a
builder in a file of its own, a record in `registry`, and then a run of
`python -m tl_toolkit.architectures.generate`.
"""
