"""Search: the same run with a few fields of its recipe replaced, trial after trial.

Not called `search`, as a function of the package is: Python would put the one over the other.
"""
