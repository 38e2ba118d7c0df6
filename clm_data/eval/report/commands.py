"""The commands that reproduce a report."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from clm_data.version import __version__

RECIPE_NAME = "recipe.yaml"


@dataclass(frozen=True)
class Commands:
    """Commands with the paths that were given.

    Attributes:
        folder: Folder of the results.
        page: The page.
        tables: Folder of the page's tables; it contains the recipe.
        dataset: The dataset as it was given; None if it was not.
        has_recipe: Whether the results contain the recipe.
    """

    folder: Path
    page: Path
    tables: Path
    dataset: str | None
    has_recipe: bool

    @property
    def install(self) -> str:
        """Install the version that wrote the page."""
        return _command("pip", "install", f"clm-data[eval]=={__version__}")

    @property
    def evaluate(self) -> str:
        """Edit and evaluate."""
        recipe = str(self.tables / RECIPE_NAME) if self.has_recipe else "RECIPE"
        dataset = self.dataset or "DATASET"
        out = str(self.folder)
        return _command(
            *("clm-data", "eval-baselines", "--recipe", recipe),
            *("--dataset", dataset, "--out", out, "--save-deltas"),
        )

    @property
    def analyze(self) -> str:
        """The command that analyzes the edits."""
        dataset = self.dataset or "DATASET"
        return _command("clm-data", "analyze", str(self.folder), "--dataset", dataset)

    @property
    def report(self) -> str:
        """The command that writes the page, with the dataset if one was given."""
        given = [] if self.dataset is None else ["--dataset", self.dataset]
        return _command("clm-data", "report", str(self.folder), "--html", str(self.page), *given)

    @property
    def report_with_dataset(self) -> str:
        """The command that writes the page with a dataset."""
        return self.report if self.dataset is not None else f"{self.report} --dataset DATASET"


def _command(*words: str) -> str:
    return shlex.join(words)
