"""The algorithm: `edit.py` has it on one screen, `stage1` finds targets, `stage2` writes them."""
