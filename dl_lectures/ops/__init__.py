"""Pure functions of arrays: unbatched, without parameters."""
