"""The chapters of the HTML report; each module has a function that makes its section."""
