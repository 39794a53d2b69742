"""The loop that makes functions faster and keeps only what it could not tell from the original."""
