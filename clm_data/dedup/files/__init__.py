"""`clm-data dedup`: near-duplicates in JSONL, CSV, Parquet and Hub tables."""
