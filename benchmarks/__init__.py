"""One script a claim: `python -m benchmarks.NAME` prints a table with ratios."""
