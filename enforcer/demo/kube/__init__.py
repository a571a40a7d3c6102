"""A real Kubernetes on this machine, for tests and for the demo: started in seconds, gone without a trace.

Owns the programs of one cluster, their folder, their keys. Never touches a cluster it did not make,
nor a file, rule or address of the host outside the state folder. Invariant: whatever is started here
ends with the process that started it, however that one ends.
"""
