"""Images from folders, tables and built-in sets: listed, looked at, split, decoded, augmented."""
