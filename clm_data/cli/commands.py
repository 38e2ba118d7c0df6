"""The whole command tree; `clm_data.cli.app` has the order in which `--help` lists it."""

from clm_data.cli.app import app
from clm_data.cli.build import app as _build
from clm_data.cli.evaluate import app as _evaluate
from clm_data.cli.evaluate_group import app as _evaluate_group
from clm_data.cli.generate import app as _generate
from clm_data.cli.publish import app as _publish
from clm_data.cli.report import app as _report
from clm_data.cli.review import app as _review
from clm_data.cli.show import app as _show
from clm_data.cli.store import app as _store
from clm_data.cli.tools import app as _tools

for _group in (
    *(_build, _generate, _show, _review, _publish, _evaluate, _evaluate_group, _report),
    *(_store, _tools),
):
    app.add_typer(_group)

__all__ = ["app"]
