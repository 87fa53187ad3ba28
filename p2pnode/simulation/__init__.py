"""A whole network in one process at virtual time: unmodified nodes, a hostile schedule, checks at every delivery."""
