"""What a run logs: to W&B, to a file, and the dashboard made of it. One file imports wandb."""
