"""Inference: features, prepared images and logits of episodes."""
