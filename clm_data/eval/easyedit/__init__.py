"""EasyEdit as a back end of the evaluation: it computes edits in an environment of its own.

Nothing of EasyEdit is imported here. `driver.py` runs in its environment, as a process that gets
requests as JSON and puts edits into files; the other modules are this side of it.
"""

METHODS = {
    "memit": "MEMIT",
    "alphaedit": "AlphaEdit",
    "pmet": "PMET",
    "rome": "ROME",
    "ft": "FT",
    "ft-m": "FT",
    "lora": "LoRA",
    "ultraedit": "ULTRAEDIT",
    "grace": "GRACE",
    "wise": "WISE",
}
"""The methods that both have: our name to EasyEdit's."""
RELEASE_METHODS = ("memit", "rome", "ft")
"""Those of the release; its LoRA is AdaLoRA, and its fine-tuning FT-L only."""
PACKAGES = {"lora": "peft"}
"""Methods that need a package besides those that EasyEdit needs for all."""
