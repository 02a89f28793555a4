"""One file for each published system, showing its whole algorithm."""
