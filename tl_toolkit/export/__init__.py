"""A run's product: a SavedModel that is proved equal to the Keras model before it is published."""
