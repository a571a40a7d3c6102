"""The controller: says on the objects of the API what became of each policy. Nothing is enforced by it.

Owns PolicyStatus and the mirrored status of policies, and the Lease by which one of its replicas writes.
Never touches a node, never decides about packets. Invariants: what it says of the nodes is what they said;
writes are bounded whatever happens in the cluster; without it every pod is contained all the same.
"""
