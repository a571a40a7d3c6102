"""What is written to Redis: names of keys, fields, and the seal over them. Pure."""

from policy.build import path_of

__path__ = path_of(__name__, __path__)
