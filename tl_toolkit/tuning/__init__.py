"""Search: the same run with a few fields of its recipe replaced, trial after trial.

The package is not called `search`, as a function is: the name of one would hide the other.
"""
