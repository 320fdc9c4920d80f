"""Where a model reads its subjects: causal tracing, and the layers that it suggests to edit."""
