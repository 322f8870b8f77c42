"""The verbs, for scripts and for the command line: each is a whole job."""
