"""The source ``kubernetes``: policies, namespaces, pods and Services of a cluster, by list and watch.

``kinds`` says what is asked for and what is kept of an object, ``store`` holds it, ``saved`` keeps a copy
for the next start, ``source`` joins them. Invariant: nothing that the API server fails to say opens
anything: what it said last stays, until it says something else.
"""
