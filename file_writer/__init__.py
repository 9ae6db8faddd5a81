"""Writes one NeXus file per scan."""
