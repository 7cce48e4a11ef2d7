"""Molecular dynamics with the forces of a diffusion model."""
