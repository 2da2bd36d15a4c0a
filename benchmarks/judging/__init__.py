"""The measurements of `python -m benchmarks.judge`, by subject."""
