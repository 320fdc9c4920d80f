"""What is read from and written to: bytes once, files whole, records, and the terminal."""
