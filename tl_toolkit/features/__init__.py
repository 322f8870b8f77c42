"""What a suffix is trained on: the prefix's outputs, computed live or kept in the store."""
