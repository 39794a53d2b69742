"""The vocabulary that every room shares; imports no other room, and never torch."""
