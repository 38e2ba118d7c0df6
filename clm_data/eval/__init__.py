"""Editing language models and measuring the edits in two languages (extra `eval`).

This is the only package that imports torch. `sweep.evaluate.evaluate` runs an evaluation; a single
edit is

    model = load_model("Qwen/Qwen2-7B")                         # model.loading
    contexts = sample_contexts(model, NATIVE)                   # editors.contexts
    moments = second_moments(model, texts, layers)              # editors.moments
    editor = make_editor("memit", "qwen2-7b", Setup(NATIVE, contexts, moments))  # editors
    edit = editor.edit(model, requests)
    with applied(model, edit) as edited:                        # editors.edits
        predict_answers(edited, questions, NATIVE)              # sweep.answers
"""
