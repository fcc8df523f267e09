"""The boards as one static HTML page that needs nothing beside itself."""
