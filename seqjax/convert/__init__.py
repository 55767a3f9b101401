"""Weights of other libraries and of published checkpoints to seqjax parameters, and back, without those libraries."""
