"""Puts readings together into complete points, in order."""
