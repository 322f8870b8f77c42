"""A server for SavedModels: two protocols, batches of several requests, and a page to try it."""
