"""Langevin dynamics and the OpenMM force."""
