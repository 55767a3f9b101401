"""Figures over a whole data set, accumulated batch by batch: each metric is three pure functions."""
