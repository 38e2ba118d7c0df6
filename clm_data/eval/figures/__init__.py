"""The figures of a sweep and of its analysis, drawn from CSV tables."""
