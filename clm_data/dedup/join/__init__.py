"""The exact similarity join: all pairs of texts above a threshold, and an incremental index."""
