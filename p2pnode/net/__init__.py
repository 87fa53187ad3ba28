"""Links between members: mutual TLS pinned by the genesis, small messages on one lane, vectors on another."""
