"""Weights of other libraries and of published checkpoints to seqjax parameters, and back; no library is imported."""
