"""What a user's scan imports, and what a client needs to check and document a scan that it does not have."""
