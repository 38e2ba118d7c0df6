"""A sweep: every combination of model, method and language, run cell by cell and resumable."""
