"""The version of the package, as manifests and `clm-data --version` give it."""

__version__ = "0.1.0"
