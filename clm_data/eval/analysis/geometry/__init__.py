"""Geometry of edits: weight changes compared across languages and with null distributions."""
