"""Search: the same run with a few fields of its recipe replaced, trial after trial."""
