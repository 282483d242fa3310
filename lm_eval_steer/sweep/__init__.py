"""Sweeps: many plans on the same requests, sharing exactly what they have in common."""
