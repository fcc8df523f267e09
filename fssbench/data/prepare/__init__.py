"""From the official archives of a dataset to the folders that fssbench reads."""
