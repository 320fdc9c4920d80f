"""Models: found, loaded, described, and told apart by their weights."""
