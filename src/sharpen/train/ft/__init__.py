"""Training that survives: a driver that watches its ranks and starts them again."""
