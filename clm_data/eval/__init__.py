"""The editing engine (extra `eval`): the only package that imports torch.

`model.loading.load_model` -> `editors.contexts.contexts_for` and
`editors.covariance.second_moments` -> `editors.make_editor(...).edit(model, facts)` ->
`editors.deltas.applied(model, deltas)`.
"""
