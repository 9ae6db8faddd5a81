"""Decides which scan runs and carries it out, step by step."""
