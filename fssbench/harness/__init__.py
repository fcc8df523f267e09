"""The harness: runs a matcher over a manifest and writes rows and a record."""
