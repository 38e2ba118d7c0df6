"""The whole command tree, in the order in which `--help` lists the commands."""

from clm_data.cli.app import app
from clm_data.cli.build import app as _build
from clm_data.cli.evaluate import app as _evaluate
from clm_data.cli.publish import app as _publish
from clm_data.cli.review import app as _review
from clm_data.cli.tools import app as _tools

for _group in (_build, _review, _publish, _evaluate, _tools):
    app.add_typer(_group)

__all__ = ["app"]
