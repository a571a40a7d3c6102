"""The door to Redis: connections, threads, questions. Nobody else in the enforcer waits for Redis."""
