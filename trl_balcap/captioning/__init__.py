"""Captions out of any model: a checkpoint, an adapter, or a server."""
