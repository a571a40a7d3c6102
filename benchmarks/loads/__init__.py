"""Loads that dnsperf cannot make: many pods, floods, changes of policy, packets; one module a kind of row.

Owns its own namespaces, its generator (``asking.c``) and its counting upstream (``answering.c``).
"""
