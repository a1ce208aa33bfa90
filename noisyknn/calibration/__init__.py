"""Trust: what the given labels' noise is like, how likely each label is right, and what to do about it."""
