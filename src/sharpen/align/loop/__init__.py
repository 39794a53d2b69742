"""One loop for all methods: the work that each gives a trainer."""
