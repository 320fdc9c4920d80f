"""Stage 1, Hierarchical Knowledge Integration: the value that each subject shall have."""
