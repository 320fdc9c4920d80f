"""An edit as a value: applied and reverted, saved and loaded."""
