"""What is kept on this machine so that it need not be computed again: entries, and their limit."""
