"""The client of the fleet: plain Python, command line and IPython shell."""
