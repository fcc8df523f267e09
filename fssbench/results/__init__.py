"""Results: records, rows and predictions of evaluations, and how they are verified."""
