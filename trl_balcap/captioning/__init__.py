"""Captioning with any model: a checkpoint, an adapter, or a server."""
