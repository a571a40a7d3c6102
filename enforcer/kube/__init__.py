"""The door to the Kubernetes API: how to reach it, plain requests, lists that are kept up to date.

Owns the wire between us and the API server. Never knows what an object means, never imports Twisted:
everything here blocks and belongs into threads.
"""
