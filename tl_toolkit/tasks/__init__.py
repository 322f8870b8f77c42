"""What a model may learn: how outputs are compared with the right answers. A task is one file."""
