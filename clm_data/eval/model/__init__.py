"""Language models as the editors use them: loading, hooks, partial forward passes, a tiny model."""
