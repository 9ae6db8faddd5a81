"""The file writer: one HDF5 file per scan, which grows while the scan runs and is final soon after its seal."""
