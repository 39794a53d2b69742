"""Making programs faster: trustworthy measurement, metrics, and the loop that improves code."""
