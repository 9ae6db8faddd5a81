"""Fits models to the data while a scan runs and afterwards."""
