"""Measurements that a user can repeat: `python -m p2pnode.bench`."""
