"""The cluster as one node sees it: other nodes' records as rows."""
