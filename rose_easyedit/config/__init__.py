"""Settings: their schema, defaults and checks, and the files that they come from."""
