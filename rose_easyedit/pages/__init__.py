"""Pages that need nothing but a browser, and what they have in common."""
