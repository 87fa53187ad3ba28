"""Experiments: many trials from one file, run side by side, kept, summed up and drawn."""
