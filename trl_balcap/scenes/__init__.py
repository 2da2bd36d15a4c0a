"""The embedded default: a drawn world, its exact judge and a tiny captioner."""
