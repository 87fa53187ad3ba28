"""The conversation between nodes, pure: no clock, no I/O, no torch, no global randomness.

Every protocol here takes messages and returns an ordered list of effects, so the same code runs in a real node and
at virtual time. Vectors never enter: a protocol sees digests, and is told when the bytes of a digest are here.
"""
