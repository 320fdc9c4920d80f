"""Running a model, whole or in part: hidden states, replays of later layers, greedy answers."""
