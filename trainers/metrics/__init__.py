"""How well predicted masks fit a kidney's labels: METRICS in table.py, and the score that they make together."""
