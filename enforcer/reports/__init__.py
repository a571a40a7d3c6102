"""What a node writes to the Kubernetes API: its NodeStatus, and Events at pods whose traffic is refused.

Pure but for ``service``. Never decides what is enforced, and nothing waits for it. Invariants: in steady
state nothing is written; whatever pods do, what they cause to be stored is bounded for each hour.
"""
