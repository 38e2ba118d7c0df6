"""Chinese-first bilingual counterfactual datasets for knowledge editing.

One function per command of `clm-data`, imported when first used:

    >>> import clm_data
    >>> workspace = clm_data.init()  # a temporary one
    >>> clm_data.generate("chinese_literature", count=5, provider="offline", workspace=workspace)
    >>> clm_data.build("dataset", workspace=workspace)

Results are objects that answer questions: `.to_pandas()`, and a table in notebooks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clm_data.version import __version__

_PUBLIC = {
    "clm_data.api.build": (
        "attach_probes",
        "audit",
        "build",
        "estimate_cost",
        "generate",
        "import_files",
        "show",
        "stats",
    ),
    "clm_data.api.publish": ("export", "load", "push_to_hub"),
    "clm_data.api.review": ("export_review", "import_review", "review_status"),
    "clm_data.api.tools": (
        "backup_store",
        "demo",
        "doctor",
        "domains",
        "init",
        "restore_store",
        "schema",
    ),
    "clm_data.config": ("Settings", "Workspace"),
    "clm_data.dedup.files.run": ("deduplicate",),
    "clm_data.errors": ("ClmDataError", "UserError"),
    "clm_data.eval.analyze": ("analyze",),
    "clm_data.eval.easyedit.install": ("setup_easyeditor",),
    "clm_data.eval.estimate.run": ("estimate_evaluation",),
    "clm_data.eval.report": ("report",),
    "clm_data.eval.saved_model": ("apply_edit", "save_model"),
    "clm_data.eval.sweep.evaluate": ("evaluate",),
    "clm_data.records": (
        "Candidate",
        "Decision",
        "Entry",
        "Fact",
        "Origin",
        "Probe",
        "Problem",
        "Record",
        "Rejection",
        "StageResult",
    ),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [
    "Candidate",
    "ClmDataError",
    "Decision",
    "Entry",
    "Fact",
    "Origin",
    "Probe",
    "Problem",
    "Record",
    "Rejection",
    "Settings",
    "StageResult",
    "UserError",
    "Workspace",
    "__version__",
    "analyze",
    "apply_edit",
    "attach_probes",
    "audit",
    "backup_store",
    "build",
    "deduplicate",
    "demo",
    "doctor",
    "domains",
    "estimate_cost",
    "estimate_evaluation",
    "evaluate",
    "export",
    "export_review",
    "generate",
    "import_files",
    "import_review",
    "init",
    "load",
    "push_to_hub",
    "report",
    "restore_store",
    "review_status",
    "save_model",
    "schema",
    "setup_easyeditor",
    "show",
    "stats",
]

if TYPE_CHECKING:
    from clm_data.api.build import (
        attach_probes,
        audit,
        build,
        estimate_cost,
        generate,
        import_files,
        show,
        stats,
    )
    from clm_data.api.publish import export, load, push_to_hub
    from clm_data.api.review import export_review, import_review, review_status
    from clm_data.api.tools import (
        backup_store,
        demo,
        doctor,
        domains,
        init,
        restore_store,
        schema,
    )
    from clm_data.config import Settings, Workspace
    from clm_data.dedup.files.run import deduplicate
    from clm_data.errors import ClmDataError, UserError
    from clm_data.eval.analyze import analyze
    from clm_data.eval.easyedit.install import setup_easyeditor
    from clm_data.eval.estimate.run import estimate_evaluation
    from clm_data.eval.report import report
    from clm_data.eval.saved_model import apply_edit, save_model
    from clm_data.eval.sweep.evaluate import evaluate
    from clm_data.records import (
        Candidate,
        Decision,
        Entry,
        Fact,
        Origin,
        Probe,
        Problem,
        Record,
        Rejection,
        StageResult,
    )


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'clm_data' has no attribute '{name}'")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
