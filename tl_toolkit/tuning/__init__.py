"""Search: the same run with a few fields of its recipe replaced, trial after trial.

Not called `search`, as a function of the package is: the name of one would hide the other.
"""
