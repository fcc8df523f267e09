"""The embedded dataset `shapes`."""
