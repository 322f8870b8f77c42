"""Images: scanned once, split, decoded by the one decoder, augmented."""
