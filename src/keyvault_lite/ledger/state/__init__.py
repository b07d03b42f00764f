"""State: the verified records in memory, their rows and the root that commits to them."""
