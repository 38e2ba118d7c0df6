"""The exact similarity join: every pair at or above a threshold, and an index."""
