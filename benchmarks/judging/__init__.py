"""What `python -m benchmarks.judge` measures, by subject."""
