"""The rules of published benchmarks for reading replies and giving points. Pure functions, checked
against the originals."""
