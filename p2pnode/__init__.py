"""A peer-to-peer learning node: decentralized SGD that learns although some of its peers lie."""

__version__ = "0.1.0"
