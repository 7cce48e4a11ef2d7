"""What trajectories show, and whether samples, simulation and reference agree.

Functions take an `mdtraj.Trajectory` and return arrays, as mdtraj's own do; the statistics take plain arrays, so that
toy systems use them too. Start at `scoremd.analysis.compare` and `scoremd.analysis.report`.
"""
