"""Review by people: what to review, sheets out and back, and what they decided."""
