"""What a node learns: tasks, their data, the node's own part of it, and local SGD with Polyak momentum.

`catalogue` names the tasks and their defaults and needs only the standard library; the other modules need torch, and
import nothing of the network.
"""
