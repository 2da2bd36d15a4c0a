"""The rules of published benchmarks: replies read, points given. Pure, and checked against the
originals."""
