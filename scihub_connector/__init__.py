"""Carries finished scans into databases and catalogues."""
