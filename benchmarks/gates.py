"""How often a question finds its edit, and how often one that is about no edit finds any.

    python benchmarks/gates.py DATASET [--facts 20,100,all] [--encoder FOLDER [--prefix "query: "]]

The first facts of the dataset are edited, and gates are calibrated as in a sweep, on facts about
other subjects. Then, in percent, for each pair of languages of edit and question:

- found: rephrased prompts that open the gate and are most like their own edit;
- expected: the same share in calibration;
- probes: locality probes that open the gate;
- neighbors: rephrased prompts that open it when their own edit is left out. Most of them are about
  a subject of which another fact is edited.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from clm_data.eval.dataset import load_dataset
from clm_data.eval.editors.in_context import InContextParams
from clm_data.eval.editors.retrieval import (
    Calibration,
    NgramRetriever,
    Retriever,
    similarities,
)
from clm_data.eval.editors.sentence_encoder import SentenceEncoder
from clm_data.eval.sweep.training_rows import training_rows
from clm_data.records import LANGUAGES, Language, Record


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--facts", default="20,100,all", help="numbers of edits, or all")
    parser.add_argument("--encoder", help="folder of a sentence encoder; default: characters")
    parser.add_argument("--prefix", default="", help="text before every question")
    options = parser.parse_args()
    records = load_dataset(options.dataset).records
    encoder = SentenceEncoder(options.encoder, options.prefix) if options.encoder else None
    print("| edits | calibrated on | edit-question | found | expected | probes | neighbors |")
    print("|---|---|---|---|---|---|---|")
    for count in options.facts.split(","):
        edited = records if count == "all" else records[: int(count)]
        rows = training_rows(records, edited)
        calibration = Calibration.on(rows, false_open=InContextParams().false_open)
        retriever = encoder or NgramRetriever.of(rows)
        source = "the rest" if isinstance(rows[0], Record) else "the bank"
        for edit, question, shares in measure(retriever, calibration, edited):
            print(f"| {len(edited)} | {source} | {edit}-{question} | {' | '.join(shares)} |")


def measure(
    retriever: Retriever, calibration: Calibration, edited: Sequence[Record]
) -> list[tuple[Language, Language, list[str]]]:
    """Languages of edit and question, and the four shares in percent."""
    prompts = {lang: [record.fact(lang).prompt for record in edited] for lang in LANGUAGES}
    gates = calibration.gates(retriever, prompts)
    out = []
    for (edit, question), gate in gates.items():
        known = retriever.vectors(prompts[edit])
        asked = [record.fact(question).rephrase_prompt for record in edited]
        found = similarities(retriever.vectors(asked), known)
        probes = [record.probe(question).loc for record in edited]
        probed = similarities(retriever.vectors(probes), known).max(axis=1)
        own = found.diagonal().copy()
        np.fill_diagonal(found, -1.0)
        other = found.max(axis=1)
        shares = (
            ((own >= gate.similarity) & (own >= other)).mean(),
            gate.recall,
            (probed >= gate.similarity).mean(),
            (other >= gate.similarity).mean(),
        )
        closed = np.isinf(gate.similarity)
        out.append(
            (edit, question, ["closed"] * 4 if closed else [f"{100 * x:.0f}" for x in shares])
        )
    return out


if __name__ == "__main__":
    main()
