"""Optimizers of programs: each reads feedback and changes parameters."""
