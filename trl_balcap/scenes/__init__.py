"""The built-in default: a drawn world, its exact judge and a tiny captioner."""
