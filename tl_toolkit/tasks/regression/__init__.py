"""One or several numbers for each image."""
