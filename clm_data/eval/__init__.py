"""The editing engine (extra ``eval``): the only package that imports torch.

``models.load_model`` -> ``contexts.contexts_for`` and ``editors.covariance.second_moments`` ->
``editors.make_editor(...).edit(model, requests)`` -> ``hooks.applied(model, deltas)``.
"""
