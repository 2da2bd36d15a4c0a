"""What is measured, one script a subject: `python -m benchmarks.judge`. Results lie in results/."""
