"""Obot's network policies, carried into the cluster: each MCPNetworkPolicy becomes one FirewallPolicy.

Owns what ``nameward bridge`` does, between the storage of an Obot and the namespace of its MCP servers.
Never decides about traffic and never reads a pod. Invariant: nothing that fails, on either side, makes
a FirewallPolicy permit more than its MCPNetworkPolicy says.
"""
