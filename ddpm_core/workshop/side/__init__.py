"""Trainings of what stands beside diffusion: judges, encoders, rivals."""
