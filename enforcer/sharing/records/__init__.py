"""What is written to Redis: names of keys, fields, and the seal over them. Pure."""
