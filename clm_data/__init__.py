"""Chinese-first bilingual counterfactual datasets for knowledge editing."""

__version__ = "0.1.0"
