"""Data sets on the host: builders, sources of records, batches. NumPy, tfds and Grain only."""
