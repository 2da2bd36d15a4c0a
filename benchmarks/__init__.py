"""Benchmarks, one script per subject: `python -m benchmarks.judge`. Results are in results/."""
