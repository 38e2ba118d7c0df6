"""Human review: export entries as sheets, import verdicts, and apply them."""
