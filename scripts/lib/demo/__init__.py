"""`make demo`: the whole product on one machine, from an empty cluster to answered requests.

Standard library only: it starts before any Python environment exists.
"""
