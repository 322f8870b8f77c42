"""Images and their targets: listed from folders and tables, not opened."""
