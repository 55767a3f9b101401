"""Video prediction: the future frames of a clip."""
