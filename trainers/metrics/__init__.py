"""How well predicted masks agree with a kidney's labels: METRICS in table.py, and the score that they form."""
