"""Exported models: the formats, and the proof that an export equals the Keras model."""
