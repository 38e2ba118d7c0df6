"""Geometry of the edits: directions, subspaces and null distributions of weight changes."""
