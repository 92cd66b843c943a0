"""A real Kubernetes on one machine; `scripts/cluster` is its command.

It runs with the system's Python and its standard library only, because it comes before every environment.
docs/local-cluster.md describes what it builds; docs/decisions/ says why it is built this way.
"""
