"""File formats: a scan's schema in, the layout of its file out. Ours is found like everybody's, by entry point."""
