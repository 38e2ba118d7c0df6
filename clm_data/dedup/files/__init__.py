"""Near-duplicates in rows of any source: JSONL, CSV and Parquet files, Hub datasets, lists.

:func:`clm_data.dedup.files.run.deduplicate` is the entry point.
"""
