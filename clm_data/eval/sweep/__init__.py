"""A sweep computes one cell per model, method, language, batch size and layers of a recipe."""
