"""Training: from a matcher's stage and a recipe to a checkpoint."""
