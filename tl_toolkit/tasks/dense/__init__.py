"""What tasks with one output per pixel share."""
