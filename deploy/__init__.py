"""Starts, watches and stops the fleet."""
