"""The scan bundler: readings of all device servers in, complete points in order out, each exactly once."""
