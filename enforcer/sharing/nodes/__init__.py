"""What nodes ask of each other: grants for each other's pods, and whose an address is. Pure."""
