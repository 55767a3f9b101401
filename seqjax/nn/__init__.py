"""Floor 2: parameter holders that two systems or more share, and the border between holders and pure functions."""
