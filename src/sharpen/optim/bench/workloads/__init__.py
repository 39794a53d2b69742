"""The workloads of the desktop suite; each trial takes seconds on one core."""
