"""Prompts that are searched for: instructions and examples, under one budget."""
