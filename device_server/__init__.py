"""Owns the device objects and executes instructions on them."""
