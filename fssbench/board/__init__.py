"""Boards: leaderboards that follow from records, and published numbers kept apart from them."""
