"""The whole command tree: importing the modules registers their commands on ``app``."""

from clm_data.cli import (
    analyze,
    audit,
    data,
    dedup,
    evaluate,
    generate,
    publish,
    review,
    workspace,
)
from clm_data.cli.app import app

__all__ = [
    "analyze",
    "app",
    "audit",
    "data",
    "dedup",
    "evaluate",
    "generate",
    "publish",
    "review",
    "workspace",
]
