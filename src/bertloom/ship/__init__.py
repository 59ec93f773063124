"""A trained model on its way to those who use it: files of vectors, smaller models."""
