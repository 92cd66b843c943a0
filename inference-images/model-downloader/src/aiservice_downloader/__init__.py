"""Fills the volume of a ModelCache: fetches the files of a model, verifies each, publishes them all at once."""
