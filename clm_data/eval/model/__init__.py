"""Models as editors see them: loading, hooks, batching, partial passes, the tiny model."""
