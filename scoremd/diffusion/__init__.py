"""Noise, losses and samplers."""
