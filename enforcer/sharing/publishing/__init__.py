"""What this node writes: its grants, pods, refusals and heartbeat, kept equal to what it holds. Pure."""
