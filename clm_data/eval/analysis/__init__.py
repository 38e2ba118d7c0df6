"""Why edits do or do not cross languages: geometry of weight changes, vectors of languages."""
