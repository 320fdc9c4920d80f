"""What an edited model answers, and what it should not have changed."""
