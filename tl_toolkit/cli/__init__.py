"""The command `tltool`: it reads arguments, calls the API, and shows results; no logic."""
