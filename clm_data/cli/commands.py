"""The whole command tree: importing the modules registers their commands on ``app``."""

from clm_data.cli import audit, data, dedup, generate, publish, review, workspace
from clm_data.cli.app import app

__all__ = ["app", "audit", "data", "dedup", "generate", "publish", "review", "workspace"]
