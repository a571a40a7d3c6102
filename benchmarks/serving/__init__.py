"""Rows of serving: what an answer costs, how long it is held, how many there can be."""
