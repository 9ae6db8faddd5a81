"""The workloads, measured on a fleet as a user starts it. `make bench` runs them; nothing here is a test."""
