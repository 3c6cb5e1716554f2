"""One script per claim: `python -m benchmarks.NAME` prints a table with ratios."""
