"""The algorithm, in the order in which data flows: forms, tokens, activations, integration,
statistics, alignment, edit."""
