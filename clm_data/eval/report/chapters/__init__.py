"""The chapters of the HTML report, one module each."""
