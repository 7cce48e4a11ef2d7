"""The energy network."""
