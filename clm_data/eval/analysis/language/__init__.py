"""Hidden states by language: language vectors, linear classifiers, activations, projections."""
